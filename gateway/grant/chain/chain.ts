/**
 * Attestations as a chain (LG/1 §1.6 step 8): complete, in order, each signed by whom the one before authorised, each naming the
 * exact bytes of the one before. Whatever was done to a chain is refused under the name of what was done. Pure.
 */
import type { KeyObject } from 'node:crypto'
import type { Confirmation, Grant } from '../../protocol/grant.ts'
import { type Attestation, checkLink, fault, type Link, readAttestation } from './attestation.ts'
import { authorityHash, MAX_HOPS } from './claims.ts'
import { hashOf } from './jws.ts'

export interface ChainKeys {
  /** Exact `iss` of the gateway's grants. */
  readonly issuer: string
  /** A gateway's public key by key id. */
  gateway(kid: string): KeyObject | undefined
  /** Key that the root grant is bound to. */
  readonly rootCnf: Confirmation | undefined
}

/**
 * The attestations that a grant carries, against the grant itself: from the key of the root down to who holds it now.
 * @throws {GatewayError} `lineage_…`
 */
export function verifyAttestations(grant: Grant, keys: ChainKeys): void {
  const { ancestry, attestations, depth, lineage, task } = grant
  const chain = readChain(attestations, { count: depth, first: 1, task: task.id, gatewayKey: keys.gateway })
  checkChain(chain, attestations, (i, before) => {
    const isNewest = i === depth - 1
    const step = lineage[i + 2]
    const isOnBehalf = chain[i]?.signer === undefined
    if (isOnBehalf !== (step?.on_behalf === true))
      throw fault('lineage_spliced', i + 1, 'it was not signed by whom the lineage says')
    return {
      issuer: keys.issuer,
      task: task.id,
      depth: i + 1,
      delegator: (before === undefined ? keys.rootCnf : before.cnf)?.jkt,
      agent: step?.id ?? '',
      authorityHash: authorityHash((isNewest ? undefined : ancestry[i + 1]?.authority) ?? grant.authority),
      ...(isNewest && { parentHash: grant.parentHash, cnf: grant.cnf ?? null }),
      ...(before !== undefined && { notAfter: before.expiresAt }),
    }
  })
  const newest = chain.at(-1)
  if (newest !== undefined && newest.expiresAt < grant.expiresAt)
    throw fault('lineage_invalid', depth, 'it ends before the grant does')
}

interface Shape {
  /** How many there must be; undefined: any number up to the limit. */
  readonly count: number | undefined
  /** Hop of the oldest; undefined: any. */
  readonly first: number | undefined
  readonly task?: string
  gatewayKey?(kid: string): KeyObject | undefined
}

/**
 * Texts as a chain, oldest first: each signed by the key that it names, none twice, none missing between two, all of one task.
 * @throws {GatewayError} `lineage_…`
 */
export function readChain(texts: readonly string[], shape: Shape): readonly Attestation[] {
  if (texts.length > MAX_HOPS + 1) throw fault('lineage_invalid', texts.length, `there are more than ${MAX_HOPS}`)
  checkOnce(texts)
  const { count, first } = shape
  if (count !== undefined && texts.length < count)
    throw fault('lineage_truncated', count, `there are ${texts.length} where ${count} delegations were made`)
  const chain = texts.map((text, i) => readAttestation(text, (first ?? 1) + i, shape.gatewayKey))
  checkOnce(chain.map((attestation) => attestation.id))
  checkOnce(chain.map((attestation) => attestation.jws.input))
  const task = shape.task ?? chain.at(-1)?.task
  const stranger = chain.findIndex((attestation) => attestation.task !== task)
  if (stranger >= 0) throw fault('lineage_grafted', stranger + 1, 'it belongs to another task')
  checkOrder(chain, first ?? Math.min(...chain.map(({ depth }) => depth)))
  if (count !== undefined && texts.length > count)
    throw fault('lineage_grafted', texts.length, `there are ${texts.length} where ${count} delegations were made`)
  if (texts.length > MAX_HOPS) throw fault('lineage_invalid', texts.length, `there are more than ${MAX_HOPS}`)
  return chain
}

/** Walk down: `linkAt` says what attestation `i` must say, knowing the one before it. */
export function checkChain(
  chain: readonly Attestation[],
  texts: readonly string[],
  linkAt: (i: number, before: Attestation | undefined) => Omit<Link, 'previous'>,
): void {
  for (const [i, attestation] of chain.entries()) {
    const before = texts[i - 1]
    const previous = before === undefined ? undefined : hashOf(before)
    checkLink(attestation, { ...linkAt(i, chain[i - 1]), previous })
  }
}

function checkOnce(values: readonly string[]): void {
  const again = values.findIndex((value, i) => values.indexOf(value) < i)
  if (again >= 0) throw fault('lineage_duplicated', again + 1, 'it stands there twice')
}

function checkOrder(chain: readonly Attestation[], first: number): void {
  const wrong = chain.findIndex(({ depth }, i) => depth !== first + i)
  if (wrong < 0) return
  const depths = new Set(chain.map(({ depth }) => depth))
  const isComplete = chain.every((_, i) => depths.has(first + i))
  if (isComplete) throw fault('lineage_reordered', first + wrong, 'it is not in its place')
  if (depths.size < chain.length) throw fault('lineage_grafted', first + wrong, 'another one was made for the same hop')
  throw fault('lineage_truncated', first + wrong, `the one of hop ${first + wrong} is missing`)
}
