/**
 * Signs a child below a grant that is bound to a key. What the gateway would refuse at first sight is refused here already, as
 * far as the parent itself tells.
 */
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { excessOf } from '../../grant/attenuate/attenuate.ts'
import { thumbprintOf } from '../../grant/chain/jws.ts'
import { type Held, readHeld, signOffline } from '../../grant/holder.ts'
import { beyond, tooWide } from '../../grant/terms.ts'
import { parseScope } from '../../protocol/authority.ts'
import { parseDetails } from '../../protocol/details.ts'
import type { Authority } from '../../protocol/grant.ts'
import { GatewayError, type ProblemCode } from '../../protocol/problem.ts'
import { timeOf } from '../at-gateway.ts'
import type { Contents } from './request.ts'

export interface SignOptions extends Contents {
  readonly parent: string
  readonly key: string
  readonly to: string
  readonly reason?: string
}

/** Prints the child. @throws {GatewayError} */
export async function sign(options: SignOptions, nowS: number): Promise<void> {
  const { to: agent, reason, step, trace, maxDepth, delegate: delegable = true } = options
  const parent = await readParent(options.parent)
  const held = heldIn(parent, options.parent)
  const key = await readKey(options.key)
  const authority = authorityOf(options) ?? held.authority
  const expiresAt = options.ttl === undefined ? held.expiresAt : nowS + options.ttl
  checkHolder(held, { key, nowS })
  const excess = [
    ...excessOf(held.authority, authority),
    ...beyond('ttl', expiresAt - nowS, held.expiresAt - nowS),
    ...beyond('max-depth', maxDepth ?? 0, held.maxDepth ?? Number.POSITIVE_INFINITY),
  ]
  if (excess.length > 0) throw tooWide(`its parent ${held.id}`, excess)
  const jkt = options.bind ?? options.dpopJkt
  const token = signOffline({
    ...{ parent, key, agent, authority, issuedAt: nowS, expiresAt, delegable },
    ...(jkt !== undefined && { cnf: { jkt } }),
    ...(maxDepth !== undefined && { maxDepth }),
    ...(step !== undefined && { step }),
    ...(trace !== undefined && { trace }),
    ...(reason !== undefined && { reason }),
  })
  process.stdout.write(`${token}\n`)
  process.stderr.write(
    `keyless: ${agent} may use it until ${timeOf(expiresAt)}, as grant ${readHeld(token).id}. The gateway decides about it when it is first used.\n`,
  )
}

/** A token as it is, or in the answer of `keyless grant issue --json` or of the token endpoint. */
async function readParent(file: string): Promise<string> {
  const text = (await readFile(file === '-' ? '/dev/stdin' : file, 'utf8')).trim()
  if (!text.startsWith('{')) return text
  const { token, access_token: accessToken = token } = JSON.parse(text) as Record<string, unknown>
  if (typeof accessToken === 'string') return accessToken
  throw refusal(
    'grant_invalid',
    `${file} is JSON without token or access_token. Save the answer that the grant came in.`,
  )
}

function heldIn(token: string, file: string): Held {
  try {
    return readHeld(token)
  } catch (cause) {
    const why = (cause as Error).message
    const advice = 'Save the token of a grant that is bound to a key; a handle cannot be signed below.'
    throw refusal('grant_invalid', `${file} holds no signed grant: ${why}. ${advice}`)
  }
}

async function readKey(file: string): Promise<KeyObject> {
  const pem = await readFile(file)
  try {
    return createPrivateKey(pem)
  } catch (cause) {
    const message = `${file} holds no private key that can be read without a passphrase. Name the PEM file of the key that the parent is bound to.`
    throw new Error(message, { cause })
  }
}

function authorityOf({ scope, details }: Contents): readonly Authority[] | undefined {
  if (scope === undefined && details === undefined) return undefined
  return [...(scope === undefined ? [] : parseScope(scope)), ...(details === undefined ? [] : parseDetails(details))]
}

function checkHolder({ cnf, delegable, depth, maxDepth, expiresAt }: Held, o: { key: KeyObject; nowS: number }): void {
  if (cnf?.jkt === undefined) {
    throw refusal(
      'delegation_refused',
      'The parent is not bound to a key, so no signature can speak for its holder. Ask the gateway: `keyless grant delegate`.',
    )
  }
  if (cnf.jkt !== thumbprintOf(createPublicKey(o.key)))
    throw refusal('lineage_spliced', 'The parent is bound to another key than this one. Sign with that key.')
  if (!delegable) throw refusal('delegation_refused', 'The parent cannot be delegated. Ask whoever gave it to you.')
  if (depth >= (maxDepth ?? Number.POSITIVE_INFINITY)) {
    throw refusal(
      'delegation_refused',
      `The parent is ${depth} delegations deep, and no chain of it may be deeper. Ask whoever gave it to you.`,
    )
  }
  if (o.nowS >= expiresAt)
    throw refusal('grant_expired', `The parent expired at ${timeOf(expiresAt)}. Get a new one, and sign below that.`)
}

function refusal(code: ProblemCode, detail: string): GatewayError {
  return new GatewayError(code, detail)
}
