/** A room of grants with identities that are played, and agents that delegate: research → search → extract. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { thumbprintOf } from '../../gateway/grant/chain/jws.ts'
import type { Grants, GrantsOptions } from '../../gateway/grant/grants.ts'
import { signAttestation } from '../../gateway/grant/holder.ts'
import type { Agent, Grant, Human } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { Identities, PresentedToken, Workload } from '../../gateway/protocol/identity.ts'
import type { GrantRequest, Instruction, IssuedGrant, Proposal } from '../../gateway/protocol/instruction.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'
import { freshStore, grantsWith, human, registry } from './grant.fixture.ts'

export const agentOf = (name: string, changes: Partial<Agent> = {}): Agent => ({
  id: `spiffe://acme.test/agents/${name}`,
  owner: `${name}-owner@acme.test`,
  purpose: name,
  riskTier: 'low',
  ...changes,
})
export const research = agentOf('research', { orchestrators: ['spiffe://acme.test/orchestrator'] })
export const search = agentOf('search')
export const extract = agentOf('extract')
export const orchestrator = agentOf('orchestrator', { id: 'spiffe://acme.test/orchestrator' })

export interface Key {
  readonly key: KeyObject
  readonly jkt: string
}

export function newHolderKey(): Key {
  const { privateKey } = generateKeyPairSync('ed25519')
  return { key: privateKey, jkt: thumbprintOf(privateKey) }
}

export const workloadOf = (id: string, changes: Partial<Workload> = {}): Workload => ({
  id,
  kind: 'jwt-svid',
  issuer: 'acme.test',
  instance: 'pod-1',
  attributes: {},
  expiresAt: 4_000_000_000,
  ...changes,
})

/** Tokens are names: `workload:<agent id>`, `human:<sub>`, `human:<sub>:<may act>`; anything else is refused. */
export const identities: Pick<Identities, 'human' | 'workload' | 'client'> = {
  async human({ token }: PresentedToken) {
    const [kind, sub, ...mayAct] = token.split('|')
    if (kind !== 'human' || sub === undefined) throw new GatewayError('subject_invalid', 'no human')
    const who: Human = { iss: 'https://id.acme.test', sub, authTime: 1_780_000_000, amr: ['hwk'] }
    return { human: who, ...(mayAct.length > 0 && { mayAct }) }
  },
  async workload({ token }) {
    const [kind, id] = token.split('|')
    if (kind !== 'workload' || id === undefined) throw new GatewayError('actor_invalid', 'no workload')
    return workloadOf(id)
  },
  async client({ assertion, certificates }) {
    if (assertion === undefined && certificates === undefined) return undefined
    const [kind, id] = (assertion?.token ?? `client|${certificates?.[0]?.toString()}`).split('|')
    if (kind !== 'client' || id === undefined) throw new GatewayError('client_invalid', 'no client')
    return workloadOf(id)
  },
}

export const asWorkload = ({ id }: Agent): PresentedToken => ({ token: `workload|${id}`, type: 'jwt-svid' })
export const asHuman = (sub: string, ...mayAct: string[]): PresentedToken => ({
  token: ['human', sub, ...mayAct].join('|'),
  type: 'id_token',
})
export const asClient = ({ id }: Agent) => ({ assertion: { type: 'jwt-bearer', token: `client|${id}` } }) as const

type Requested = Extract<Instruction, { kind: 'grant.request' }>

export function requesting(changes: Partial<Requested> = {}): Requested {
  return {
    kind: 'grant.request',
    id: uuidv7(),
    tenant: 'acme',
    grantType: 'token-exchange',
    client: {},
    request: {},
    ...changes,
  }
}

export interface World {
  readonly grants: Grants
  readonly clock: ManualClock
  readonly store: GrantsOptions['store']
  readonly ended: Grant[]
  /** Take an instruction through: proposed, performed. */
  do(instruction: Instruction): Promise<IssuedGrant | null>
  propose(instruction: Instruction): Promise<Proposal>
  /** A root grant of research over the socket. */
  open(request?: GrantRequest): Promise<IssuedGrant>
  /** A child by token exchange with the parent's token; `by` is the parent's key. */
  child(parent: IssuedGrant, to: Agent, request?: GrantRequest, more?: Partial<Requested>): Promise<IssuedGrant>
}

export function openWorld(changes: Partial<GrantsOptions> = {}): World {
  const clock = (changes.clock as ManualClock | undefined) ?? manualClock()
  const store = changes.store ?? freshStore(clock)
  const ended: Grant[] = []
  const grants = grantsWith({
    agents: registry(research, search, extract, orchestrator),
    identities,
    onEnded: (grant) => void ended.push(grant),
    serveOffline: (token, tenant) => world.do({ kind: 'grant.present', id: uuidv7(), tenant, token }),
    ...changes,
    clock,
    store,
  })
  const issued = async (instruction: Instruction): Promise<IssuedGrant> => {
    const made = await world.do(instruction)
    if (made === null) throw new Error(`${instruction.kind} issues a grant`)
    return made
  }
  const world: World = {
    grants,
    clock,
    store,
    ended,
    propose: async (instruction) => grants.propose(instruction),
    do: async (instruction) => grants.perform(await grants.propose(instruction), {}),
    open: (request = { scope: 'github:*' }) =>
      issued({
        kind: 'task.open',
        id: uuidv7(),
        tenant: 'acme',
        human,
        agent: research.id,
        purpose: 'find out',
        request,
      }),
    child: (parent, to, request = {}, more = {}) =>
      issued(
        requesting({
          subject: { token: parent.handle ?? parent.token, type: 'access_token' },
          requestedActor: to.id,
          request,
          ...more,
        }),
      ),
  }
  return world
}

/** What the holder of a bound grant sends along when it delegates. */
export function attesting(
  parent: IssuedGrant,
  key: Key,
  to: Agent,
  o: {
    readonly authority?: Grant['authority']
    readonly cnf?: { readonly jkt: string }
    readonly seconds?: number
  } = {},
): Partial<Requested> {
  const { issuedAt, expiresAt, authority } = parent.grant
  const attestation = signAttestation({
    parent: parent.token,
    key: key.key,
    agent: to.id,
    authority: o.authority ?? authority,
    issuedAt,
    expiresAt: o.seconds === undefined ? expiresAt : issuedAt + o.seconds,
    ...(o.cnf && { cnf: o.cnf }),
  })
  return { attestation, jkt: key.jkt }
}
