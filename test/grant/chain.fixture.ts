/** Chains of grants as they are really made: by the gateway for holders with and without keys, and offline. */
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import fc from 'fast-check'
import { thumbprintOf } from '../../gateway/grant/chain/jws.ts'
import { childLineage, lineageHash, rootLineage } from '../../gateway/grant/chain/lineage.ts'
import { offlineChild, readOffline } from '../../gateway/grant/chain/offline.ts'
import { createTokenSeal, type TokenSeal } from '../../gateway/grant/chain/token.ts'
import { signAttestation, signOffline } from '../../gateway/grant/holder.ts'
import type { Agent, Authority, Confirmation, Grant } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'

export const ISSUER = 'http://127.0.0.1:8081'
export const POLICY = 'sha256:policy'
export const NOW_S = Date.UTC(2026, 5, 1, 12) / 1000
export const gatewayKey = generateKeyPairSync('ed25519').privateKey
export const seal = createTokenSeal({ issuer: ISSUER, keys: { current: gatewayKey, retired: [] } })

/** Generated once: making keys would be most of what a property test does. */
const pool = Array.from({ length: 24 }, (_, i) =>
  i % 2 === 0
    ? generateKeyPairSync('ed25519').privateKey
    : generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
)
export const ed25519 = pool[0] as KeyObject
export const es256 = pool[1] as KeyObject

export const agentOf = (n: number): Agent => ({
  id: `spiffe://acme.test/agents/a${n}`,
  owner: 'ana@acme.test',
  purpose: `agent ${n}`,
  riskTier: 'low',
})

export const boundTo = (key: KeyObject): Confirmation => ({ jkt: thumbprintOf(createPublicKey(key)) })

/** A grant with what it takes to use and delegate it. */
export interface Held {
  readonly grant: Grant
  readonly token: string
  readonly key?: KeyObject | undefined
}

export async function root(key?: KeyObject, changes: Partial<Grant> = {}, by: TokenSeal = seal): Promise<Held> {
  const id = uuidv7(NOW_S * 1000)
  const human = { iss: 'https://id.acme.test', sub: 'ana', authTime: NOW_S - 60, amr: ['pwd', 'otp'], acr: 'urn:acr:2' }
  const agent = agentOf(0)
  const lineage = rootLineage(human, agent.id, id)
  const grant: Grant = {
    id,
    tenant: 'acme',
    human,
    agent,
    task: { id: `task_${uuidv7(NOW_S * 1000)}`, purpose: 'triage issue 42' },
    authority: [{ operations: ['github:issues.read', 'github:pulls.*'] }],
    issuedAt: NOW_S,
    expiresAt: NOW_S + 900,
    lineage,
    lineageHash: lineageHash(lineage),
    depth: 0,
    maxDepth: 8,
    delegable: true,
    ancestry: [],
    attestations: [],
    ...(key && { cnf: boundTo(key) }),
    ...changes,
  }
  const { token, signedHash } = await by.sign(grant)
  return { grant: { ...grant, signedHash }, token, key }
}

export interface ChildOptions {
  readonly key?: KeyObject | undefined
  readonly isOffline?: boolean
  readonly authority?: readonly Authority[]
  readonly changes?: Partial<Grant>
}

/** One hop further down, the way that its parent allows. */
export async function delegate(parent: Held, o: ChildOptions = {}, by: TokenSeal = seal): Promise<Held> {
  const depth = parent.grant.depth + 1
  const agent = agentOf(depth)
  const authority = o.authority ?? [{ operations: ['github:issues.read'] }]
  const [issuedAt, expiresAt] = [NOW_S + depth, parent.grant.expiresAt - 1]
  const cnf = o.key && boundTo(o.key)
  const said = { parent: parent.token, agent: agent.id, authority, issuedAt, expiresAt, ...(cnf && { cnf }) }
  if (o.isOffline) {
    const token = signOffline({ ...said, key: parent.key as KeyObject })
    const { parent: known, hops } = await readOffline(token, async (id) => knownAbove(parent.grant, id), ISSUER)
    const grant = hops.reduce((above, hop, i) => offlineChild(above, hop, agentOf(known.depth + 1 + i)), known)
    return { grant, token, key: o.key }
  }
  const id = uuidv7(issuedAt * 1000)
  const lineage = childLineage(parent.grant, agent.id, id, parent.key === undefined)
  const { cnf: _cnf, parentHash: _hash, signedHash: _signed, ...above } = parent.grant
  const unsigned: Grant = {
    ...above,
    id,
    agent,
    authority,
    issuedAt,
    expiresAt,
    lineage,
    lineageHash: lineageHash(lineage),
    depth,
    delegable: true,
    ancestry: [...above.ancestry, { id: above.id, authority: above.authority }],
    parentHash: parent.grant.signedHash as string,
    ...(cnf && { cnf }),
    ...o.changes,
  }
  const hop = { parent: parent.grant, child: unsigned, issuer: ISSUER, policy: POLICY }
  const attestation = parent.key ? signAttestation({ ...said, key: parent.key }) : await by.attest(hop)
  const child = { ...unsigned, attestations: [...above.attestations, attestation] }
  const { token, signedHash } = await by.sign(child)
  return { grant: { ...child, signedHash }, token, key: o.key }
}

/** grant id → grant: what a gateway knows; every grant made here, as a gateway that was asked for each would. */
const knownGrants = new Map<string, Grant>()

function knownAbove(grant: Grant, id: string): Grant | undefined {
  knownGrants.set(grant.id, grant)
  return knownGrants.get(id)
}

export interface HopKind {
  readonly key: number | undefined
  readonly isOffline: boolean
}

/** Up to `max` hops of every kind; the first entry says what the root is bound to. */
export const kinds = (max: number, min = 0) =>
  fc.array(fc.record({ key: fc.option(fc.nat(pool.length - 1), { nil: undefined }), isOffline: fc.boolean() }), {
    minLength: min + 1,
    maxLength: max + 1,
  })

/** Root first. */
export async function chainOf(
  [first, ...hops]: readonly HopKind[],
  changes: Partial<Grant> = {},
): Promise<readonly Held[]> {
  const chain: Held[] = [await root(poolKey(first?.key), changes)]
  for (const [i, kind] of hops.entries()) {
    const parent = chain.at(-1) as Held
    // Only a key signs offline, and an offline grant without one is the last of its line.
    const isOffline = kind.isOffline && parent.key !== undefined
    const key = isOffline && i < hops.length - 1 && kind.key === undefined ? poolKey(i) : poolKey(kind.key)
    chain.push(await delegate(parent, { key, isOffline }))
  }
  return chain
}

const poolKey = (n: number | undefined) => (n === undefined ? undefined : pool[n])
