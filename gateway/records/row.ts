/** An entry of the log as a row of the index. Pure; tolerant, because what is not as expected is for `verify` to complain of. */
import type { Entry, Step } from '../audit/entries/entry.ts'

const TEXTS = [
  ...['log', 'kind', 'req', 'tenant', 'gw', 'human', 'human_iss', 'agent', 'task', 'purpose', 'grant_id', 'chain'],
  ...[
    'service',
    'operation',
    'method',
    'scheme',
    'host',
    'path',
    'effect',
    'code',
    'policy_ids',
    'policy_set',
    'error',
  ],
  ...['credential', 'cred_id', 'provider', 'cache', 'trace', 'prompt_hash', 'ip', 'ua', 'detail'],
] as const
const COUNTS = [
  ...['seq', 'end_seq', 'ts', 'depth', 'port', 'status', 'dur_ms', 'bytes_in', 'bytes_out', 'scrubbed', 'ephemeral'],
  'cred_expires',
] as const

/** Columns of `records`, without `id`, in the order of the statements. */
export const COLUMNS = [...TEXTS, ...COUNTS]

/** A row of `records`. */
export type Row = Record<(typeof TEXTS)[number], string | null> &
  Record<(typeof COUNTS)[number], number | null> & { log: string; seq: number; ts: number; kind: string }

/** Someone or something in a lineage, as in `chains`. */
export interface Actor {
  readonly id: string
  readonly n: number
  readonly kind: 'human' | 'ai_agent' | 'grant'
}

/** Members that every entry has, and that are columns; the others are the `detail`. */
const COMMON = new Set(['v', 'seq', 'ts', 'kind', 'log', 'req', 'tenant', 'gw'])

const EMPTY = Object.fromEntries(COLUMNS.map((column) => [column, null])) as unknown as Row

export type Members = Readonly<Record<string, unknown>>

/** What an entry says by itself: a decision makes the row of a call, an outcome only the part `withOutcome` takes from it. */
export function rowOf(entry: Entry, log: string): Row {
  const members = entry as unknown as Members
  const facts = objectIn(members.facts)
  const isCall = entry.kind.startsWith('call.')
  return {
    ...EMPTY,
    ...{
      log,
      seq: entry.seq,
      ts: Date.parse(entry.ts),
      kind: isCall ? 'call' : text(entry.kind),
      req: text(entry.req),
    },
    tenant: text(entry.tenant),
    gw: text(objectIn(members.gw).node),
    ...authorityIn(entry, members, facts),
    ...targetIn(objectIn(members.target), facts),
    ...decisionIn(objectIn(members.decision)),
    ...credentialIn(objectIn(members.cred), facts),
    ...clientIn(objectIn(members.client)),
    trace: traceIn(members.trace) ?? traceIn(objectIn(members.grant).trace),
    detail: isCall ? null : detailOf(members),
    ...(entry.kind === 'call.outcome' && endIn(objectIn(members.outcome), entry.seq)),
  }
}

/** What an outcome adds to the row of its call. */
export type Ending = ReturnType<typeof endingOf>

export function endingOf(cred: Members, outcome: Members, seq: number) {
  return { ...credentialIn(cred, {}), ...endIn(outcome, seq) }
}

/** The row of a call with what the row of its outcome says. */
export function withOutcome(row: Row, outcome: Row): Row {
  const { end_seq, status, error, dur_ms, bytes_in, bytes_out, scrubbed } = outcome
  const { credential, cred_id, provider, ephemeral, cred_expires, cache } = outcome
  const end = { end_seq, status, error, dur_ms, bytes_in, bytes_out, scrubbed }
  return { ...row, ...end, credential, cred_id, provider, ephemeral, cred_expires, cache }
}

/** Everyone in the lineage of an entry, each once. */
export function actorsIn(entry: Entry): Actor[] {
  const steps: readonly Step[] = Array.isArray(entry.lineage) ? entry.lineage : []
  return steps.flatMap(({ id, type, grant }, n) => {
    const kind = type === 'human' ? 'human' : 'ai_agent'
    const actor: Actor[] = typeof id === 'string' ? [{ id: clean(id), n, kind }] : []
    return typeof grant === 'string' ? [...actor, { id: clean(grant), n, kind: 'grant' }] : actor
  })
}

function authorityIn(entry: Entry, members: Members, facts: Members) {
  const human = objectIn(members.human)
  const task = objectIn(members.task)
  const grant = objectIn(members.grant)
  const steps = actorsIn(entry)
  const agents = steps.filter(({ kind }) => kind === 'ai_agent')
  const presented = text(objectIn(members.client).grant)
  return {
    human: text(human.sub),
    human_iss: text(human.iss),
    agent: text(objectIn(grant.agent).id) ?? agents.at(-1)?.id ?? text(facts.agent),
    task: text(task.id) ?? text(facts.task),
    purpose: text(task.purpose) ?? text(facts.purpose),
    grant_id: text(grant.id) ?? text(facts.grant) ?? steps.findLast(({ kind }) => kind === 'grant')?.id ?? presented,
    chain: text(members.lineage_hash),
    depth: agents.length === 0 ? null : agents.length - 1,
  }
}

function targetIn(target: Members, facts: Members) {
  return {
    service: text(target.service) ?? text(facts.service),
    operation: text(target.operation) ?? text(facts.operation),
    method: text(target.method),
    scheme: text(target.scheme),
    host: text(target.host)?.toLowerCase() ?? null,
    port: whole(target.port),
    path: text(target.path),
  }
}

function decisionIn(decision: Members) {
  return {
    effect: text(decision.effect),
    code: text(decision.code),
    policy_ids: Array.isArray(decision.policy_ids) ? clean(JSON.stringify(decision.policy_ids)) : null,
    policy_set: text(decision.policy_set),
    status: whole(decision.status),
  }
}

function credentialIn(cred: Members, facts: Members) {
  const from = cred.cred_id === undefined ? facts : cred
  return {
    credential: text(from.credential),
    cred_id: text(from.cred_id),
    provider: text(from.provider),
    ephemeral: flag(from.ephemeral),
    cred_expires: from.cred_id === undefined ? null : msOf(from.expires),
    cache: text(cred.cache),
  }
}

function clientIn(client: Members) {
  return { ip: text(client.ip), ua: text(client.ua), prompt_hash: text(client.prompt_hash) }
}

function endIn(outcome: Members, seq: number) {
  return {
    end_seq: seq,
    status: whole(outcome.status),
    error: text(outcome.error),
    dur_ms: typeof outcome.dur_ms === 'number' ? outcome.dur_ms : null,
    bytes_in: whole(outcome.bytes_in),
    bytes_out: whole(outcome.bytes_out),
    scrubbed: whole(outcome.scrubbed),
  }
}

function detailOf(members: Members): string | null {
  const { iss: _iss, sub: _sub, ...proof } = objectIn(members.human)
  const rest = Object.entries(members).filter(([name]) => !COMMON.has(name))
  if (Object.keys(proof).length > 0) rest.push(['human', proof]) // how it was proved; who it is are columns
  return rest.length === 0 ? null : clean(JSON.stringify(Object.fromEntries(rest)))
}

/** The id in a `traceparent`, or the id itself. */
export function traceIn(value: unknown): string | null {
  return (typeof value === 'string' && /(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])/.exec(value)?.[0]) || null
}

export function objectIn(value: unknown): Members {
  return typeof value === 'object' && value !== null ? (value as Members) : {}
}

export function text(value: string): string
export function text(value: unknown): string | null
export function text(value: unknown): string | null {
  return typeof value === 'string' ? clean(value) : null
}

/** Postgres keeps no NUL in a text. */
export function clean(value: string): string {
  return value.includes('\0') ? value.replaceAll('\0', '\uFFFD') : value
}

export function whole(value: unknown): number | null {
  return Number.isSafeInteger(value) ? (value as number) : null
}

export function flag(value: unknown): number | null {
  return typeof value === 'boolean' ? Number(value) : null
}

/** Epoch seconds as milliseconds. */
export function msOf(seconds: unknown): number | null {
  return typeof seconds === 'number' && Number.isSafeInteger(Math.round(seconds * 1000))
    ? Math.round(seconds * 1000)
    : null
}
