/**
 * References to secrets: settings name the place, never the value. The place is read again at every issue, so a rotated
 * secret is picked up without a restart.
 */
import { execFile } from 'node:child_process'
import { hash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { resolve } from 'node:path'
import { z } from 'zod'
import { GatewayError } from '../protocol/problem.ts'
import { Secret } from '../protocol/secret.ts'

/** Milliseconds a command may take to print a secret. */
const EXEC_TIMEOUT_MS = 10_000

/** Bytes; a PEM key or a JWK is a few kilobytes, anything larger is the wrong file. */
const MAX_SECRET_BYTES = 65_536

const FORMS =
  'write { env: NAME }, { file: path }, { sealed: NAME }, { vault: path, field: name } or { exec: [command, argument, …] }'

/** Names in the sealed store that people give. No slash: what the gateway keeps there itself has one. */
export const SEALED_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/

const envReference = z.strictObject({
  env: z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, { error: 'is not the name of an environment variable' }),
})
const fileReference = z.strictObject({ file: z.string().min(1) })
const execReference = z.strictObject({ exec: z.array(z.string()).min(1) })
const sealedReference = z.strictObject({
  sealed: z
    .string()
    .regex(SEALED_NAME, { error: 'is not the name of a sealed secret: A-Z a-z 0-9 . _ -, at most 128' }),
})
const vaultReference = z.strictObject({
  /** As its API has it: version 2 of the key-value engine has `data/` behind the mount. */
  vault: z.string().regex(/^(?!.*(?:^|\/)\.{1,2}(?:\/|$))[A-Za-z0-9_.-]+(?:\/[A-Za-z0-9_.-]+)+$/, {
    error: 'is not a path of a secret in Vault, such as secret/data/billing',
  }),
  /** Default `value`. */
  field: z.string().min(1).optional(),
})

export type VaultReference = z.infer<typeof vaultReference>

/**
 * Where a secret is read from: `{ env: NAME }`, `{ file: path }` (relative to the settings file), `{ sealed: NAME }` (of
 * `keyless secret set`), `{ vault: path, field: name }` (of the server that settings name, for credentials alone) or
 * `{ exec: [command, argument, …] }` (no shell, 10 s, standard output). A bare string is refused with what to write instead; the
 * message never repeats the value, because it may be a secret.
 */
export const secretReference = z.union([envReference, fileReference, sealedReference, vaultReference, execReference], {
  error: (issue) =>
    typeof issue.input === 'string'
      ? `a secret is never written into settings: put it into a file or an environment variable and ${FORMS}`
      : `is not a reference to a secret: ${FORMS}`,
})

export type SecretReference = z.infer<typeof secretReference>

/** What a reference of this gateway's settings names, read anew. @throws as `readSecret` does. */
export type ReadSecret = (reference: SecretReference, signal?: AbortSignal) => Promise<Secret>

/** What references lead to, besides variables. */
export interface Places {
  /** Directory that relative paths and commands start from: where the settings file is. */
  readonly baseDir: string
  /** A value of the sealed store; undefined when there is none of this name. Absent: there is no store. */
  sealed?(name: string): Promise<Secret | undefined>
}

/**
 * Read the secret that a reference names. One trailing newline is cut, nothing else is changed.
 * @throws {GatewayError} `credential_unconfigured` when the place does not exist or is empty, `credential_unavailable` when
 *   a command fails or takes longer than 10 s, `store_unavailable`. No message holds a value or what a command printed.
 */
export async function readSecret(reference: SecretReference, places: Places, signal?: AbortSignal): Promise<Secret> {
  if ('sealed' in reference) return readSealed(reference.sealed, places)
  // Where there is a server, `vault/kv.ts` has read it.
  if ('vault' in reference)
    throw unconfigured('only credentials can refer to Vault, and only with `vault:` in the settings')
  const text = withoutTrailingNewline(await readText(reference, places.baseDir, signal))
  if (text === '') throw unconfigured(`${place(reference)} holds no value`)
  return new Secret(text)
}

/** A reference as it appears in a provider's identity. A command is hashed: its arguments may themselves be sensitive. */
export function referenceIdentity(reference: SecretReference): readonly [kind: string, place: string] {
  if ('env' in reference) return ['env', reference.env]
  if ('file' in reference) return ['file', reference.file]
  if ('sealed' in reference) return ['sealed', reference.sealed]
  if ('vault' in reference) return ['vault', `${reference.vault}#${reference.field ?? 'value'}`]
  return ['exec', hash('sha256', JSON.stringify(reference.exec), 'base64url')]
}

async function readSealed(name: string, { sealed }: Places): Promise<Secret> {
  const secret = await sealed?.(name)
  if (secret !== undefined) return secret
  throw unconfigured(`nothing is sealed under the name ${name}: store it with \`keyless secret set ${name}\``)
}

type LocalReference = Exclude<SecretReference, { readonly sealed: string } | VaultReference>

function readText(reference: LocalReference, baseDir: string, signal: AbortSignal | undefined): Promise<string> {
  if ('env' in reference) return readEnvironment(reference.env)
  if ('file' in reference) return readBoundedFile(resolve(baseDir, reference.file), reference)
  return readCommand(reference, baseDir, signal)
}

async function readEnvironment(name: string): Promise<string> {
  const value = process.env[name]
  if (value === undefined) throw unconfigured(`environment variable ${name} is not set`)
  return value
}

async function readBoundedFile(path: string, reference: LocalReference): Promise<string> {
  let file: Awaited<ReturnType<typeof open>> | undefined
  try {
    file = await open(path, 'r')
    // One byte more than allowed, so that a longer file is noticed without reading all of it.
    const buffer = Buffer.alloc(MAX_SECRET_BYTES + 1)
    const { bytesRead } = await file.read(buffer, 0, buffer.length, 0)
    if (bytesRead > MAX_SECRET_BYTES) throw unconfigured(`${place(reference)} is larger than 64 KiB`)
    const text = buffer.toString('utf8', 0, bytesRead)
    buffer.fill(0)
    return text
  } catch (cause) {
    if (cause instanceof GatewayError) throw cause
    throw unconfigured(`${place(reference)} cannot be read (${errorCode(cause)})`)
  } finally {
    await file?.close()
  }
}

function readCommand(
  reference: z.infer<typeof execReference>,
  cwd: string,
  signal: AbortSignal | undefined,
): Promise<string> {
  const [command = '', ...args] = reference.exec
  const options = { cwd, timeout: EXEC_TIMEOUT_MS, killSignal: 'SIGKILL', maxBuffer: MAX_SECRET_BYTES } as const
  return new Promise((done, fail) => {
    // The error of execFile carries the whole command line and its output: only its code leaves this function.
    execFile(command, args, signal === undefined ? options : { ...options, signal }, (error, stdout) => {
      if (error === null) done(stdout)
      else fail(commandFailure(reference, error))
    }).stdin?.end()
  })
}

function commandFailure(reference: LocalReference, error: Error & { killed?: boolean }): GatewayError {
  const code = errorCode(error)
  if (code === 'ENOENT' || code === 'EACCES') return unconfigured(`${place(reference)} cannot be started (${code})`)
  const why = error.killed === true ? 'was stopped: it took longer than 10 s or printed too much' : `failed (${code})`
  return new GatewayError('credential_unavailable', `The secret could not be read: ${place(reference)} ${why}.`)
}

/** How a message names the place. The agent reads it too, so it tells no path of the gateway's machine. */
function place(reference: LocalReference): string {
  if ('env' in reference) return `environment variable ${reference.env}`
  return 'file' in reference ? 'the file that settings name' : 'the command that settings name'
}

function unconfigured(what: string): GatewayError {
  return new GatewayError('credential_unconfigured', `The secret could not be read: ${what}.`)
}

function errorCode(cause: unknown): string {
  const code = cause instanceof Error ? (cause as Error & { code?: unknown }).code : undefined
  if (typeof code === 'number') return `exit ${code}`
  return typeof code === 'string' ? code : 'unknown error'
}

function withoutTrailingNewline(text: string): string {
  if (text.endsWith('\r\n')) return text.slice(0, -2)
  return text.endsWith('\n') ? text.slice(0, -1) : text
}
