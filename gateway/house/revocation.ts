/**
 * The part of the composition root that ends access: orders of people, of signals and of the gateway's own rules, each in the log
 * before it takes effect.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Audit } from '../audit/audit.ts'
import type { Grants } from '../grant/grants.ts'
import { type Anomaly, Habits } from '../grant/life/habit.ts'
import type { GrantStore } from '../grant/store/store.ts'
import { serveInstruction } from '../instruction.ts'
import type { Leases } from '../lease/leases.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Decision } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import { uuidv7 } from '../protocol/id.ts'
import { requireKnown } from '../protocol/nearest.ts'
import { asGatewayError, GatewayError } from '../protocol/problem.ts'
import type {
  AutomaticCause,
  RevocationAuthor,
  RevocationOrder,
  Revocations,
  RevocationTarget,
  Revoked,
} from '../protocol/revocation.ts'
import type { Endpoint } from '../protocol/service.ts'
import type { Settings } from '../settings.ts'

export interface HouseRevocation extends Revocations {
  /** A credential came back in the answer to a call of this grant. Never throws. */
  leaked(grant: Grant): void
  /** Agents are registered no more. Never throws. */
  removed(agents: readonly string[]): void
  /**
   * What a decision means for what is ended: nothing that the call needs was ended or blocked since it began.
   * @throws {GatewayError} `access_blocked`, `grant_revoked`
   */
  require(call: Judged): void
  /** The same since. @throws {GatewayError} `access_blocked`, `grant_revoked` */
  still(call: Omit<Judged, 'decision'>): void
}

interface Judged {
  readonly grant: Grant
  readonly endpoint: Endpoint
  readonly decision: Decision
}

export interface RevocationParts {
  readonly audit: Pick<Audit, 'administer' | 'late' | 'recordUnder'>
  readonly clock: Clock
  readonly store: Pick<GrantStore, 'once' | 'add' | 'left'>
  readonly catalogue: { readonly services: readonly { readonly name: string }[] }
  /** Registered agents by id. */
  readonly agents: ReadonlyMap<string, unknown>
  /** Built later than this. */
  rooms(): Rooms
}

type Rooms = Parameters<typeof serveInstruction>[1] & {
  readonly grants: Pick<Grants, 'revoke' | 'idOf' | 'blocked' | 'lift' | 'blocks' | 'list' | 'task' | 'requireOpen'>
  readonly leases: Pick<Leases, 'revoke'>
}

/** So long an order waits for the log; what it takes away must not outlast a disk that hangs. */
const RECORD_MS = 500
const MAX_REASON = 200
/** Targets that nothing but a block ends: there is nothing of theirs that lives by itself. */
const CLOSED = ['service', 'credential', 'everything'] as const

export function createHouseRevocation(settings: Settings, parts: RevocationParts): HouseRevocation {
  const order = async (o: RevocationOrder) => {
    const known = checked(o, settings, parts)
    const target = 'grant' in o.target ? { grant: await parts.rooms().grants.idOf(o.target.grant) } : o.target // a handle is a secret
    return carryOut({ ...known, target }, settings, parts)
  }
  const automatically = (target: RevocationTarget, from: AutomaticCause, reason: string) =>
    void order({ target, reason, by: { automatic: from } }).catch(() => undefined) // the log says so
  const { leak, anomaly } = settings.revocation
  const noticed = (grant: Grant, what: Anomaly) =>
    void act(grant, what, anomaly?.action ?? 'log', parts, order).catch(() => undefined)
  const habits = anomaly && new Habits({ ...parts, limits: anomaly.limits, tell: noticed })
  return {
    order,
    async lift(target, by) {
      if ('grant' in target || 'task' in target)
        throw invalid('The end of a grant or task is for good. Open a new task instead.')
      const { grants } = parts.rooms()
      const { id } = await grants.blocked(target, 'signal' in by ? by.signal : undefined)
      const { by: who, facts } = saidOf(by, target, settings.tenant)
      await recorded('revocation.lifted', { by: who, facts: { order: id, ...facts } }, parts)
      await grants.lift(target, id)
    },
    blocks: () => parts.rooms().grants.blocks(),
    leaked(grant) {
      const { id, task, agent } = grant
      const ends = { grant: { grant: id }, task: { task: task.id }, agent: { agent: agent.id }, lease: undefined }[leak]
      if (ends) automatically(ends, 'leak', 'A credential came back in an answer.')
    },
    removed(agents) {
      for (const agent of agents)
        automatically({ agent }, 'agent_removed', 'The agent is not in the settings any more.')
    },
    require({ grant, endpoint, decision }) {
      const { revoke } = decision.obligations
      const isAllowed = decision.effect === 'allow'
      if (revoke !== undefined && !isAllowed)
        automatically(
          revoke === 'task' ? { task: grant.task.id } : { grant: grant.id },
          'off_plan',
          `Policy refused ${endpoint.operation.name}, and ends the ${revoke} for it.`,
        )
      parts.rooms().grants.requireOpen(grant, endpoint.service)
      if (isAllowed) habits?.called(grant, nameOf(endpoint))
    },
    still: ({ grant, endpoint }) => parts.rooms().grants.requireOpen(grant, endpoint.service),
  }
}

/** Where an operation says nothing about the place, the place is what is new. */
function nameOf({ operation, service, host }: Endpoint): string {
  return service.credential === undefined || operation.name.endsWith(':unlisted')
    ? `${operation.name} ${host}`
    : operation.name
}

/** @throws {GatewayError} `instruction_invalid` */
function checked(
  o: RevocationOrder,
  settings: Settings,
  { agents, catalogue, clock }: RevocationParts,
): RevocationOrder {
  const { target, by, reason, untilS } = o
  if ('service' in target)
    requireKnown(
      'service',
      target.service,
      catalogue.services.map(({ name }) => name),
    )
  if ('credential' in target) requireKnown('credential', target.credential, Object.keys(settings.credentials))
  // In an incident "0 ended" would read as "there was none". What signals and the gateway itself name may be gone already.
  if ('agent' in target && 'human' in by) requireKnown('agent', target.agent, [...agents.keys()])
  if (typeof untilS === 'number' && untilS * 1000 <= clock.nowMs())
    throw invalid('The block would be over already. Name a later time.')
  if (untilS !== undefined && ('grant' in target || 'task' in target))
    throw invalid('A grant or task ends for good, so there is nothing to block until then. Block its agent or human.')
  const isClosed = CLOSED.some((kind) => kind in target)
  return { ...o, reason: reason.slice(0, MAX_REASON), ...(isClosed && untilS === undefined && { untilS: null }) }
}

async function carryOut(o: RevocationOrder, settings: Settings, parts: RevocationParts): Promise<Revoked> {
  const { clock } = parts
  const id = uuidv7(clock.nowMs())
  const startedMs = clock.elapsedMs()
  const { target, reason, by, untilS } = o
  const said = saidOf(by, target, settings.tenant, reason)
  await recorded(
    'revocation.ordered',
    { ...said, facts: { order: id, ...said.facts, ...(untilS !== undefined && { until: untilS }) } },
    parts,
  )
  const self = { tenant: settings.tenant }
  try {
    const { grants, leases } = parts.rooms()
    const ended = await grants.revoke(target, { id, reason, untilS, signal: 'signal' in by ? by.signal : undefined })
    const dropped =
      'service' in target || 'credential' in target
        ? await leases.revoke({ ...target, grants: await livingGrants(grants, settings.tenant) })
        : 0
    const sum = { tasks: ended.tasks, grants: ended.grants, leases: ended.leases + dropped }
    parts.audit.late('revocation.completed', self, { order: id, ...sum, ms: Math.round(clock.elapsedMs() - startedMs) })
    return { id, ...sum, ...(ended.untilS !== undefined && { untilS: ended.untilS }) }
  } catch (cause) {
    const refusal = asGatewayError(cause)
    parts.audit.late('revocation.failed', self, { order: id, code: refusal.code })
    throw refusal
  }
}

async function livingGrants(grants: Rooms['grants'], tenant: string): Promise<readonly Grant[]> {
  const tasks = await grants.list(tenant)
  const living = await Promise.all(tasks.map(({ id }) => grants.task(tenant, id).catch(() => undefined)))
  return living.flatMap((one) => one?.grants ?? [])
}

interface Said {
  readonly by: Parameters<Audit['late']>[1]
  readonly facts: Parameters<Audit['late']>[2]
}

/** Before it takes effect, unless the log cannot be written: then as soon as it can. */
async function recorded(
  kind: 'revocation.ordered' | 'revocation.lifted',
  { by, facts }: Said,
  { audit }: RevocationParts,
): Promise<void> {
  const late = Symbol('late')
  const stop = new AbortController()
  const written = audit.administer(kind, by, facts).catch(() => audit.late(kind, by, facts))
  await Promise.race([written, pause(RECORD_MS, late, { signal: stop.signal, ref: false }).catch(() => late)])
  stop.abort()
}

/** Who said it of what. The entry of an order about a human is theirs, so that it is sealed and forgotten as they are. */
function saidOf(by: RevocationAuthor, target: RevocationTarget, tenant: string, reason?: string): Said {
  const [kind, name] = nameOfTarget(target)
  const who =
    'human' in by
      ? { by: 'human' }
      : 'signal' in by
        ? { by: 'signal', from: by.signal.issuer }
        : { by: 'automatic', from: by.automatic }
  const facts = { target: kind, ...(name !== undefined && { name }), ...who }
  const detail = reason === undefined ? {} : { detail: reason }
  if (!('human' in target))
    return { by: { tenant, ...('human' in by && { human: by.human }) }, facts: { ...facts, ...detail } }
  const giver = 'human' in by ? ` (ordered by ${by.human.iss} ${by.human.sub})` : ''
  return {
    by: { tenant, human: target.human },
    facts: { ...facts, ...(reason !== undefined && { detail: `${reason}${giver}` }) },
  }
}

function nameOfTarget(target: RevocationTarget): readonly [kind: string, name: string | undefined] {
  if ('everything' in target) return ['everything', undefined]
  if ('human' in target) return ['human', undefined]
  if ('policySet' in target) return ['policy_set', target.policySet]
  const [kind = '', name] = Object.entries(target)[0] ?? []
  return [kind, name as string]
}

/** What settings want done about an agent that does what it never did. The call that was noticed goes on. */
async function act(
  grant: Grant,
  what: Anomaly,
  action: 'log' | 'suspend' | 'revoke',
  parts: RevocationParts,
  order: Revocations['order'],
): Promise<void> {
  const facts = { agent: grant.agent.id, rule: what.rule, detail: what.detail, action }
  await parts.audit.recordUnder('revocation.anomaly', grant, facts).catch(() => undefined)
  const { tenant, human, task } = grant
  if (action === 'suspend')
    await serveInstruction({ kind: 'task.suspend', id: uuidv7(), tenant, by: { human }, task: task.id }, parts.rooms())
  if (action === 'revoke') await order({ target: { task: task.id }, reason: what.detail, by: { automatic: 'anomaly' } })
}

function invalid(what: string): GatewayError {
  return new GatewayError('instruction_invalid', what)
}
