/**
 * Checks an exported grant and everything above it from the gateway's public keys alone. Tells who authorised whom, or the first
 * thing that is wrong.
 */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { type Verified, type VerifiedGrant, verifyBundle } from '../../grant/chain/bundle-verify.ts'
import { lineageSentence } from '../../grant/chain/lineage.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { controlClient } from '../control-client.ts'
import { findSocket } from '../log/find-socket.ts'
import { printable } from '../log/words.ts'

const JWKS_LIMIT_BYTES = 64 * 1024
const TIMEOUT_MS = 10_000
const EXIT = { verified: 0, refused: 1, unusable: 2 } as const

/** Prints the finding. @returns the exit code. */
export async function verify(file: string, jwks: string | undefined): Promise<number> {
  let text: string
  let keys: ReadonlyMap<string, KeyObject>
  try {
    text = await readBundle(file)
    keys = readKeySet(await readJwks(jwks), jwks ?? 'The gateway')
  } catch (cause) {
    process.stderr.write(`keyless: ${(cause as Error).message}\n`)
    return EXIT.unusable
  }
  try {
    process.stdout.write(
      told(
        verifyBundle(text, (kid) => keys.get(kid)),
        Date.now() / 1000,
      ),
    )
    return EXIT.verified
  } catch (cause) {
    if (!(cause instanceof GatewayError)) throw cause
    process.stdout.write(`Does not verify (${cause.code}). ${cause.detail}\n`)
    return EXIT.refused
  }
}

async function readBundle(file: string): Promise<string> {
  try {
    return await readFile(file === '-' ? '/dev/stdin' : file, 'utf8')
  } catch (cause) {
    const why = (cause as NodeJS.ErrnoException).code
    const message = `${file} cannot be read (${why}). Write it with \`keyless grant show ID --bundle > ${file}\`.`
    throw new Error(message, { cause })
  }
}

/** Named by whoever runs the command, never by what is checked: a bundle could name keys of its own. */
async function readJwks(from: string | undefined): Promise<string> {
  if (from === undefined) return JSON.stringify(await controlClient(await findSocket({})).jwks())
  if (!/^https?:/.test(from)) return readFile(from, 'utf8')
  const url = new URL(from)
  const isLoopback = ['127.0.0.1', '[::1]', 'localhost'].includes(url.hostname)
  if (url.protocol === 'http:' && !isLoopback)
    throw new Error(`${from} could be answered by anyone in between. Use https, or save the keys to a file.`)
  const answer = await fetch(url, { redirect: 'error', signal: AbortSignal.timeout(TIMEOUT_MS) }).catch((cause) => {
    throw new Error(`${from} cannot be read. Check the address, or save the keys to a file.`, { cause })
  })
  if (!answer.ok) throw new Error(`${from} answered ${answer.status}. Check the address, or save the keys to a file.`)
  return await collect(answer, from)
}

async function collect(answer: Response, from: string): Promise<string> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of answer.body ?? []) {
    size += chunk.length
    if (size > JWKS_LIMIT_BYTES)
      throw new Error(`${from} answered more than ${JWKS_LIMIT_BYTES} bytes; key sets are smaller.`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** Ed25519 keys by id; others are for other things. */
function readKeySet(text: string, from: string): ReadonlyMap<string, KeyObject> {
  const keys = new Map<string, KeyObject>()
  for (const jwk of jwksIn(text)) {
    const { kty, crv, x, kid } = jwk as Record<string, unknown>
    if (crv !== 'Ed25519' || kty !== 'OKP' || typeof x !== 'string' || typeof kid !== 'string') continue
    if (keys.has(kid)) throw new Error(`${from} has two keys of the id ${JSON.stringify(kid)}.`)
    keys.set(kid, createPublicKey({ key: { kty, crv, x }, format: 'jwk' }))
  }
  if (keys.size > 0) return keys
  throw new Error(`${from} holds no Ed25519 key with a kid. It must be the key set of the gateway (RFC 7517).`)
}

function jwksIn(text: string): readonly unknown[] {
  try {
    const { keys } = JSON.parse(text) as { keys?: unknown }
    if (Array.isArray(keys)) return keys
  } catch {
    // Said by the caller: there is no key in it.
  }
  return []
}

function told({ human, task, tenant, issuer, grants }: Verified, nowS: number): string {
  const steps = grants.map(({ agent }, i) => ({ n: i + 1, type: 'ai_agent' as const, id: agent }))
  const lineage = [{ n: 0, type: 'human' as const, id: human.sub }, ...steps]
  return [
    `Verified: ${lineageSentence({ human, task, lineage })}.`,
    `  human   ${human.sub} (${human.iss})`,
    `  task    ${task.id}, tenant ${tenant}, issued by ${issuer}`,
    ...grants.map((grant, i) => `  grant ${i} ${grant.id}  ${grant.agent}${by(grant)}, ${lifetime(grant, nowS)}`),
    `  may     ${grants
      .at(-1)
      ?.authority.flatMap(({ operations }) => operations)
      .join(' ')}`,
    '',
  ]
    .map(printable) // holders choose some of these words
    .join('\n')
}

function by({ attestedBy }: VerifiedGrant): string {
  if (attestedBy === undefined) return ''
  return attestedBy === 'delegator'
    ? ', attested by its delegator'
    : ', attested by the gateway on behalf of a delegator without a key'
}

function lifetime({ expiresAt }: VerifiedGrant, nowS: number): string {
  return `${expiresAt <= nowS ? 'expired' : 'until'} ${new Date(expiresAt * 1000).toISOString()}`
}
