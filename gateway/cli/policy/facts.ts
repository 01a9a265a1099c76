/**
 * What the entries of a log say of the facts that policies read. A value is taken only where an entry has it whole: what was cut,
 * sealed under a key that is not here, or never written, is left out.
 */
import type { JsonValue } from '../../audit/canonical.ts'
import type { Entry, Step } from '../../audit/entries/entry.ts'
import type { Value } from '../../policy/attributes/attributes.ts'
import { isCovered } from '../../policy/tools/replay.ts'
import type { Kind } from '../../policy/tools/supposed.ts'

/** What the log says of a grant when it is made. */
export interface Made {
  readonly facts: ReadonlyMap<string, Value>
  readonly expires: number | undefined
  readonly operations: readonly string[]
  /** Its own constraints ask for somebody's consent. */
  readonly takesConsent: boolean
}

export function madeIn({ grant, facts, task }: Entry): Made {
  const { agent, attested, break_glass, preset, step, delegable, cnf, authority } = (grant ?? {}) as unknown as Partial<
    Record<string, JsonValue>
  >
  const workload = member(facts, 'workload')
  const found: [string, Value | undefined][] = [
    ['principal', text(agent, 'id')],
    ['principal.owner', text(agent, 'owner')],
    ['principal.purpose', text(agent, 'purpose')],
    ['principal.risk_tier', text(agent, 'risk_tier')],
    ['principal.labels', texts(member(agent, 'labels'))],
    ['context.break_glass', typeof break_glass === 'boolean' ? break_glass : undefined],
    ['context.attested', typeof attested === 'boolean' ? attested : undefined],
    ['context.delegable', typeof delegable === 'boolean' ? delegable : undefined],
    // Members that are not there say that there is no such thing; a grant that was cut says nothing.
    ['context.preset', agent === undefined ? undefined : (plain(preset) ?? '')],
    ['context.step', agent === undefined ? undefined : (plain(step) ?? '')],
    ['context.proof', agent === undefined ? undefined : proofs(cnf)],
    ...plan(task),
    ['context.workload_kind', workloadText(workload, attested, 'kind')],
    ['context.workload_issuer', workloadText(workload, attested, 'issuer')],
  ]
  const patterns = Array.isArray(authority) ? authority.flatMap((one) => member(one, 'operations') ?? []) : []
  const takesConsent =
    !Array.isArray(authority) || authority.some((one) => member(member(one, 'constraints'), 'approval'))
  const expires = typeof grant?.expires === 'number' ? grant.expires : undefined
  return {
    facts: known(found),
    expires,
    operations: patterns.flatMap((one) => plain(one as JsonValue) ?? []),
    takesConsent,
  }
}

/** Only entries about grants have it, and there it is absent where nobody foresaw anything. */
function plan(task: Entry['task']): [string, Value | undefined][] {
  if (whole(task?.id) === undefined) return []
  const patterns = (task as { readonly plan?: readonly string[] }).plan
  const isWhole = patterns === undefined || patterns.every((one) => whole(one) !== undefined)
  return isWhole
    ? [
        ['context.has_plan', patterns !== undefined],
        ['context.plan', patterns ?? []],
      ]
    : []
}

/** Of an agent that was only named there is none; of one that was renewed the log says it only where it proved itself again. */
function workloadText(
  workload: JsonValue | undefined,
  attested: JsonValue | undefined,
  name: string,
): string | undefined {
  if (attested === false) return ''
  return workload === undefined ? undefined : (text(workload, name) ?? '')
}

function proofs(cnf: JsonValue | undefined): string[] {
  const bound = [member(cnf, 'jkt') && 'dpop', member(cnf, 'x5t#S256') && 'mtls'].filter(
    (one) => typeof one === 'string',
  )
  return bound.length === 0 ? ['bearer'] : bound
}

/** Who stands behind it, as every entry that names a grant has it. */
export function standing({ human, task, lineage, ts }: Entry): Map<string, Value> {
  const steps = lineage?.every((step) => step.cut === undefined) ? lineage : undefined
  const agents = steps?.flatMap((step) => (step.type === 'ai_agent' ? (whole(step.id) ?? []) : []))
  return known([
    ['context.human', whole(human?.sub)],
    ['context.human_iss', whole(human?.iss)],
    [
      'context.human_amr',
      human === undefined ? undefined : ((member(human as unknown as JsonValue, 'amr') as string[]) ?? []),
    ],
    ['context.task_id', whole(task?.id)],
    ['context.purpose', whole(task?.purpose)],
    ['context.human_hops', steps?.flatMap(({ n, type }) => (type === 'human' && n !== undefined ? [n] : []))],
    ['context.lineage_depth', steps && Math.max(0, steps.filter(({ type }) => type === 'ai_agent').length - 1)],
    ['context.lineage', steps && hops(steps)],
    ['context.lineage_agents', agents],
    ['context.root_agent', agents?.[0]],
    ...clock(Date.parse(ts)),
    ['principal', whole(lineage?.at(-1)?.id)],
  ])
}

function clock(ms: number): [string, number][] {
  const at = new Date(ms)
  return [
    ['context.now', Math.floor(ms / 1000)],
    ['context.hour_utc', at.getUTCHours()],
    ['context.weekday_utc', at.getUTCDay() || 7],
  ]
}

function hops(steps: readonly Step[]): Value | undefined {
  if (steps.some(({ id }) => whole(id) === undefined)) return undefined
  return steps.map(({ n = 0, type = '', id = '', on_behalf }) => ({ n, type, id, on_behalf: on_behalf === true }))
}

export function callFacts(
  { target, client, lineage = [], ts, decision }: Entry,
  made: Made | undefined,
): Map<string, Value> {
  const asked = member(decision as unknown as JsonValue | undefined, 'asked')
  const protocol = text(asked, 'protocol')
  const foreseen = made?.facts.get('context.plan') as readonly string[] | undefined
  const operation = whole(target?.operation)
  const steps = lineage.every((step) => step.cut === undefined) ? lineage : undefined
  const agents = steps?.filter(({ type }) => type === 'ai_agent')
  const left = made?.expires === undefined ? undefined : Math.floor(made.expires - Date.parse(ts) / 1000)
  return known([
    ['resource.scheme', target?.scheme],
    ['resource.host', whole(target?.host)],
    ['resource.port', target?.port],
    ['resource.path', whole(target?.path)],
    ['context.method', whole(target?.method)],
    ['context.source_ip', whole(client?.ip)],
    ['context.door', client?.mode],
    ['context.grant_id', whole(lineage.at(-1)?.grant)],
    ['context.ttl_s', left],
    ['context.websocket', protocol && protocol === 'websocket'],
    ['context.params', paramsIn(member(asked, 'params'))],
    ['context.on_plan', operation && foreseen && isCovered(foreseen, operation)],
    ['context.on_behalf', steps?.some((step) => step.on_behalf === true)],
    ['context.parent_agent', agents && (agents.length < 2 ? '' : whole(agents.at(-2)?.id))],
  ])
}

/** All of them, or none: one that was cut may be what decides. */
function paramsIn(params: JsonValue | undefined): Value | undefined {
  if (typeof params !== 'object' || params === null) return undefined
  const texts = Object.values(params)
    .flat()
    .filter((one) => typeof one === 'string')
  return texts.every((one) => whole(one) !== undefined) ? (params as Value) : undefined
}

/** A grant is decided on by the time that it says it was issued at. */
export function issuingFacts({ lineage, facts, grant }: Entry, kind: Exclude<Kind, 'call'>): Map<string, Value> {
  const { ttl_s: ttl, delegator, on_behalf: isOnBehalf } = facts ?? {}
  const issued = (grant as { readonly issued?: number } | undefined)?.issued
  const steps = lineage?.every((step) => step.cut === undefined) ? lineage : undefined
  const attested = steps && (isOnBehalf === true || steps.some((step) => step.on_behalf === true))
  return known([
    ...(issued === undefined ? [] : clock(issued * 1000)),
    ['context.ttl_s', typeof ttl === 'number' ? ttl : undefined],
    ...(kind === 'delegate'
      ? ([
          ['context.delegator', plain(delegator)],
          ['context.on_behalf', attested],
        ] as const)
      : []),
  ])
}

function known(pairs: readonly (readonly [string, Value | undefined])[]): Map<string, Value> {
  return new Map(pairs.filter((pair): pair is [string, Value] => pair[1] !== undefined))
}

function member(value: JsonValue | undefined, name: string): JsonValue | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as { readonly [name: string]: JsonValue })[name]
    : undefined
}

function text(value: JsonValue | undefined, name: string): string | undefined {
  return plain(member(value, name))
}

/** All of them, or none. */
function texts(value: JsonValue | undefined): string[] | undefined {
  if (!Array.isArray(value)) return undefined
  const found = value.flatMap((one) => plain(one) ?? [])
  return found.length === value.length ? found : undefined
}

function plain(value: JsonValue | undefined): string | undefined {
  return typeof value === 'string' ? whole(value) : undefined
}

/** Undefined for what is sealed, or was cut because it did not fit. */
export function whole(value: string | undefined): string | undefined {
  const isPart =
    value === undefined ||
    /^sealed:[\w-]{16}:/.test(value) ||
    /…\[\+\d+ (?:chars|more), sha256:[\w-]{43}\]$/.test(value)
  return isPart ? undefined : value
}
