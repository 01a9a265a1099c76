/** What a filter means, said once more without any index: every entry is looked at. Held against the index by `find.test.ts`. */
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import type { Filter } from '../../gateway/records/query.ts'

interface Seen {
  readonly decided: Entry
  readonly ended: Entry | undefined
}

/** Numbers of the entries that match, oldest first: of a call, the number of its decision. */
export function scan(entries: readonly Entry[], filter: Filter): number[] {
  const ends = new Map(entries.filter(({ kind }) => kind === 'call.outcome').map((entry) => [entry.req, entry]))
  return entries
    .filter(({ kind }) => kind !== 'call.outcome')
    .map((decided): Seen => ({ decided, ended: decided.kind === 'call.decision' ? ends.get(decided.req) : undefined }))
    .filter((seen) => matches(seen, filter))
    .sort((a, b) => Date.parse(a.decided.ts) - Date.parse(b.decided.ts) || a.decided.seq - b.decided.seq)
    .map(({ decided }) => decided.seq)
}

function matches({ decided, ended }: Seen, filter: Filter): boolean {
  const { human, lineage = [], target, client, decision } = decided
  const facts = (decided.facts ?? {}) as Record<string, string | undefined>
  const agents = lineage.filter(({ type }) => type === 'ai_agent')
  const status = ended?.outcome?.status ?? decision?.status
  const kind = decided.kind === 'call.decision' ? 'call' : decided.kind
  const cred = (ended?.cred ?? facts) as { credential?: string; cred_id?: string }
  const holds: Record<keyof Filter, () => boolean> = {
    tenant: () => decided.tenant === filter.tenant,
    log: () => decided.log === filter.log,
    human: () => filter.human === human?.sub || filter.human === `${human?.iss} ${human?.sub}`,
    agent: () => filter.agent === ((decided.grant as { agent?: { id: string } })?.agent?.id ?? agents.at(-1)?.id),
    task: () => filter.task === decided.task?.id,
    ancestor: () => lineage.some(({ id, grant }) => id === filter.ancestor || grant === filter.ancestor),
    grant: () => filter.grant === (decided.grant?.id ?? facts.grant ?? agents.at(-1)?.grant),
    service: () => filter.service === (target?.service ?? facts.service),
    operation: () => covers(filter.operation ?? '', target?.operation),
    host: () =>
      filter.host === target?.host ||
      (filter.host?.startsWith('*.') && target?.host.endsWith(filter.host.slice(1))) === true,
    status: () => String(status) === filter.status || `${String(status)[0]}xx` === filter.status,
    effect: () => decision?.effect === filter.effect,
    kind: () =>
      kind === filter.kind || (filter.kind?.endsWith('.*') && kind.split('.')[0] === filter.kind.slice(0, -2)) === true,
    credential: () => cred.credential === filter.credential || cred.cred_id === filter.credential,
    trace: () => (decided as { trace?: string }).trace?.split('-')[1] === filter.trace,
    prompt: () => (client as { prompt_hash?: string })?.prompt_hash === filter.prompt,
    text: () => words(filter.text ?? '').every((word) => textOf({ decided, ended }).includes(word)),
    since: () => Date.parse(decided.ts) >= (filter.since ?? 0),
    until: () => Date.parse(decided.ts) < (filter.until ?? 0),
  }
  return Object.keys(filter).every((name) => holds[name as keyof Filter]())
}

function covers(pattern: string, operation: string | undefined): boolean {
  if (operation === undefined) return false
  return /[.:]\*$/.test(pattern) ? operation.startsWith(pattern.slice(0, -1)) : pattern === operation
}

function words(text: string): string[] {
  return text
    .normalize('NFKC')
    .toLowerCase()
    .split(/[^\p{L}\p{N}]+/u)
    .filter(Boolean)
}

/** Of a call what is named in `Filter.text`; of another entry all that it says. */
function textOf({ decided, ended }: Seen): string[] {
  const { task, target, decision, human, lineage, client } = decided
  if (decided.kind !== 'call.decision')
    return words(everything({ ...decided, v: '', ts: '', kind: '', log: '', req: '', tenant: '' }))
  const { path, service, operation, host } = target ?? {}
  const { code, policy_ids } = decision ?? {}
  const agent = lineage?.findLast(({ type }) => type === 'ai_agent')?.id
  const said = [path, service, operation, host, code, policy_ids, task?.purpose, human?.sub, agent, client?.ua]
  return words(everything([...said, ended?.cred?.credential, ended?.cred?.provider, ended?.outcome?.error]))
}

function everything(value: unknown): string {
  if (typeof value === 'string') return value
  return typeof value === 'object' && value !== null ? Object.values(value).map(everything).join(' ') : ''
}
