/**
 * Who stands for a bundle: DSSE envelopes (v1.0.2, secure-systems-lab) around an in-toto Statement v1 that names every file by its
 * SHA-256. Ed25519 alone, so there is no algorithm to choose. Nothing in an envelope is looked at before enough signatures of
 * different keys stand for the very bytes that are read. Pure.
 */
import { createPublicKey, hash, type KeyObject, sign, verify } from 'node:crypto'
import { z } from 'zod'
import { parseStrictJson } from '../../protocol/strict-json.ts'

/** Beside the policies that it stands for. */
export const MANIFEST = 'bundle.dsse.json'
export const MAX_MANIFEST_BYTES = 256 * 1024
const MAX_FILES = 1024

const PAYLOAD_TYPE = 'application/vnd.in-toto+json'
const STATEMENT = 'https://in-toto.io/Statement/v1'
const PREDICATE = 'urn:keyless:policy-bundle:v1'

/** What is wrong with a bundle, in a sentence for whoever offers it. */
export class BundleRefused extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = 'BundleRefused'
  }
}

/** Relative, with slashes, of letters that mean one thing on every file system; no segment begins with a dot. */
const FILE_NAME = /^(?!.{201})[A-Za-z0-9_][A-Za-z0-9._-]*(?:\/[A-Za-z0-9_][A-Za-z0-9._-]*)*\.cedar$/
export function isFileName(name: string): boolean {
  return FILE_NAME.test(name)
}

/** In ids of policies, so as plain as a directory. */
export const BUNDLE_NAME = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$/

const instant = z.iso.datetime({ offset: false }).transform((text) => Math.floor(Date.parse(text) / 1000))
const statementSchema = z.strictObject({
  _type: z.literal(STATEMENT),
  subject: z
    .array(
      z.strictObject({
        name: z.string().regex(FILE_NAME, 'a plain relative path that ends in .cedar'),
        digest: z.strictObject({ sha256: z.string().regex(/^[0-9a-f]{64}$/) }),
      }),
    )
    .min(1)
    .max(MAX_FILES),
  predicateType: z.literal(PREDICATE),
  predicate: z.strictObject({
    name: z.string().regex(BUNDLE_NAME),
    version: z.int().min(1),
    issued_at: instant,
    not_before: instant.optional(),
    not_after: instant.optional(),
  }),
})
const envelopeSchema = z.object({
  payload: z.string(),
  payloadType: z.string(),
  signatures: z
    .array(z.object({ keyid: z.string().optional(), sig: z.string() }))
    .min(1)
    .max(64),
})

export interface Statement {
  readonly name: string
  /** Grows with every bundle of this name: an older one is never taken in place of a newer one. */
  readonly version: number
  /** Epoch seconds, as the next two. */
  readonly issuedAt: number
  readonly notBefore: number | undefined
  /** The first instant at which it does not decide any more. Undefined: it has no end. */
  readonly notAfter: number | undefined
  /** File → SHA-256 in hex. */
  readonly files: ReadonlyMap<string, string>
}

export interface Signed {
  readonly statement: Statement
  /** Ids of the keys that stand for it, sorted. */
  readonly signedBy: readonly string[]
}

export interface Trusted {
  /** Ed25519 public keys. */
  readonly keys: readonly KeyObject[]
  /** Different keys that have to sign. */
  readonly signatures: number
}

/** @throws {BundleRefused} */
export function verifyManifest(bytes: Buffer, { keys, signatures }: Trusted): Signed {
  const envelope = read(envelopeSchema, bytes, 'no DSSE envelope')
  if (envelope.payloadType !== PAYLOAD_TYPE)
    throw new BundleRefused(`${MANIFEST} is of the type ${envelope.payloadType.slice(0, 80)}, not ${PAYLOAD_TYPE}.`)
  const payload = bytesOf(envelope.payload)
  const message = preAuthenticated(payload)
  const signers = new Set(
    keys
      .filter((key) => envelope.signatures.some(({ sig }) => verify(null, message, key, bytesOf(sig))))
      .map((key) => keyId(key)),
  )
  if (signers.size < signatures)
    throw new BundleRefused(
      `${MANIFEST} carries ${signers.size === 0 ? 'no signature' : `the signature of ${[...signers].join(', ')} alone, and none`} by a key that the settings trust with policies (${keys.map(keyId).join(', ')}); ${signatures} of them must sign. Sign it with \`keyless policy sign\`.`,
    )
  const { subject, predicate } = read(statementSchema, payload, 'no statement about a policy bundle')
  const files = new Map(subject.map(({ name, digest }) => [name, digest.sha256]))
  if (files.size < subject.length) throw new BundleRefused(`${MANIFEST} names a file twice.`)
  return {
    statement: {
      name: predicate.name,
      version: predicate.version,
      issuedAt: predicate.issued_at,
      notBefore: predicate.not_before,
      notAfter: predicate.not_after,
      files,
    },
    signedBy: [...signers].sort(),
  }
}

/** The bytes of a manifest for `statement`, signed. */
export function signManifest(statement: Statement, key: KeyObject): Buffer {
  const time = (epochS: number) => new Date(epochS * 1000).toISOString().replace('.000Z', 'Z')
  const { files, name, version, issuedAt, notBefore, notAfter } = statement
  const payload = {
    _type: STATEMENT,
    subject: [...files]
      .map(([file, sha256]) => ({ name: file, digest: { sha256 } }))
      .sort((a, b) => (a.name < b.name ? -1 : 1)),
    predicateType: PREDICATE,
    predicate: {
      ...{ name, version, issued_at: time(issuedAt) },
      ...(notBefore !== undefined && { not_before: time(notBefore) }),
      ...(notAfter !== undefined && { not_after: time(notAfter) }),
    },
  }
  return envelopeOf(Buffer.from(JSON.stringify(payload)), [], key)
}

/** The same manifest with one more signature. @throws {BundleRefused} when it is none. */
export function cosignManifest(bytes: Buffer, key: KeyObject): Buffer {
  const { payload, signatures } = read(envelopeSchema, bytes, 'no DSSE envelope')
  const others = signatures.filter(({ keyid }) => keyid !== keyId(createPublicKey(key)))
  return envelopeOf(bytesOf(payload), others, key)
}

function envelopeOf(payload: Buffer, others: readonly object[], key: KeyObject): Buffer {
  const own = {
    keyid: keyId(createPublicKey(key)),
    sig: sign(null, preAuthenticated(payload), key).toString('base64'),
  }
  const envelope = { payloadType: PAYLOAD_TYPE, payload: payload.toString('base64'), signatures: [...others, own] }
  return Buffer.from(`${JSON.stringify(envelope, null, 2)}\n`)
}

/** `sha256:` and 16 hex digits of the hash of its SPKI: for people to compare, never to find a key by. */
export function keyId(key: KeyObject): string {
  return `sha256:${hash('sha256', key.export({ type: 'spki', format: 'der' }), 'hex').slice(0, 16)}`
}

/** PAE of DSSE: the type and the lengths are signed along, so that no bytes can be taken for another kind of document. */
function preAuthenticated(payload: Buffer): Buffer {
  return Buffer.concat([
    Buffer.from(`DSSEv1 ${Buffer.byteLength(PAYLOAD_TYPE)} ${PAYLOAD_TYPE} ${payload.length} `),
    payload,
  ])
}

/** DSSE takes both alphabets; anything else is not base64, and what `Buffer` makes of it is of no use to anyone. */
function bytesOf(base64: string): Buffer {
  if (!/^[A-Za-z0-9+/_-]*={0,2}$/.test(base64)) throw new BundleRefused(`${MANIFEST} holds what is not base64.`)
  return Buffer.from(base64, 'base64')
}

function read<S extends z.ZodType>(schema: S, bytes: Buffer, not: string): z.output<S> {
  try {
    return schema.parse(parseStrictJson(new TextDecoder('utf-8', { fatal: true }).decode(bytes)))
  } catch (cause) {
    const [issue] = cause instanceof z.ZodError ? cause.issues : []
    const why = issue === undefined ? 'it is not JSON' : `${issue.path.join('.')}: ${issue.message}`
    throw new BundleRefused(`${MANIFEST} is ${not} (${why}).`, { cause })
  }
}
