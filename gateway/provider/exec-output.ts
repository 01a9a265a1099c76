/**
 * What a command prints as a credential: plain text, or JSON of one of three shapes: our own, `ExecCredential` of Kubernetes' client-go
 * plugins (client.authentication.k8s.io/v1 and v1beta1), and that of AWS' `credential_process`. No text of it reaches a message.
 */
import { z } from 'zod'
import { GatewayError } from '../protocol/problem.ts'
import { Secret } from '../protocol/secret.ts'
import { parseStrictJson } from '../protocol/strict-json.ts'
import type { Credential } from './provider.ts'

const text = z.string().min(1)
/** RFC 3339, with any offset. */
const instant = z.iso.datetime({ offset: true }).transform((value) => Math.floor(Date.parse(value) / 1000))
const epochS = z.int().positive()
const PART = /^[a-z][a-z0-9_]*$/

/** Other members are parts; they must be text. */
const own = z
  .object({ value: text.optional(), expires_at: z.union([epochS, instant]).optional(), expires_in: epochS.optional() })
  .catchall(text)
  .refine((printed) => Object.keys(printed).every((name) => PART.test(name)))

/** Kubernetes: "Either token, or clientCertificateData and clientKeyData, or all." */
const kubernetes = z.object({
  kind: z.literal('ExecCredential'),
  status: z.object({
    expirationTimestamp: instant.optional(),
    token: text.optional(),
    clientCertificateData: text.optional(),
    clientKeyData: text.optional(),
  }),
})

const aws = z.object({
  Version: z.literal(1),
  AccessKeyId: text,
  SecretAccessKey: text,
  SessionToken: text.optional(),
  Expiration: instant.optional(),
})

interface Printed {
  readonly secret: string | undefined
  readonly parts: Readonly<Record<string, string | undefined>>
  /** Epoch seconds. */
  readonly expiresAt: number | undefined
}

/**
 * @param nowS epoch seconds before the command was run
 * @param ttlS for what says no end of its own
 * @throws {GatewayError} `credential_rejected` for anything else, and for what has ended already.
 */
export function readPrinted(printed: Secret, nowS: number, ttlS: number | undefined): Credential {
  const output = printed.reveal()
  const { secret, parts, expiresAt } = output.trimStart().startsWith('{')
    ? readJson(output, nowS)
    : { secret: output, parts: {}, expiresAt: undefined }
  const given = Object.entries(parts).filter((part): part is [string, string] => part[1] !== undefined)
  const value = secret ?? given[0]?.[1]
  if (value === undefined) throw unusable('holds no credential')
  if (expiresAt !== undefined && expiresAt <= nowS) throw unusable('has ended already')
  return {
    secret: new Secret(value),
    ...(given.length > 0 && { parts: Object.fromEntries(given.map(([name, part]) => [name, new Secret(part)])) }),
    expiresAt: expiresAt ?? (ttlS === undefined ? Number.POSITIVE_INFINITY : nowS + ttlS),
    ephemeral: expiresAt !== undefined,
  }
}

function readJson(output: string, nowS: number): Printed {
  let json: unknown
  try {
    json = parseStrictJson(output)
  } catch {
    throw unusable('begins like JSON and is none')
  }
  const ofKubernetes = kubernetes.safeParse(json)
  if (ofKubernetes.success) {
    const { token, clientCertificateData: certificate, clientKeyData, expirationTimestamp } = ofKubernetes.data.status
    return {
      secret: token ?? clientKeyData,
      parts: { certificate, private_key: clientKeyData },
      expiresAt: expirationTimestamp,
    }
  }
  const ofAws = aws.safeParse(json)
  if (ofAws.success) {
    const { AccessKeyId, SecretAccessKey, SessionToken, Expiration } = ofAws.data
    return {
      secret: SecretAccessKey,
      parts: { access_key_id: AccessKeyId, secret_access_key: SecretAccessKey, session_token: SessionToken },
      expiresAt: Expiration,
    }
  }
  const ofOurs = own.safeParse(json)
  if (!ofOurs.success)
    throw unusable(
      'is JSON of another shape than { "value": "…", "expires_in": 600 }, ExecCredential or credential_process',
    )
  const { value, expires_at, expires_in, ...parts } = ofOurs.data
  const expiresAt = expires_at ?? (expires_in === undefined ? undefined : nowS + expires_in)
  return { secret: value, parts: parts as Record<string, string>, expiresAt }
}

function unusable(why: string): GatewayError {
  return new GatewayError(
    'credential_rejected',
    `What the command of the credential printed ${why}. Correct the command.`,
  )
}

/** What can be started at all. */
export function isExecutable([program = '', ...args]: readonly string[]): boolean {
  return program !== '' && ![program, ...args].some((argument) => argument.includes('\0'))
}
