/**
 * What an entry says that other entries are held against, in few bytes: a verifier of millions keeps these and not the entries.
 * Everything here is only a claim of whoever wrote the log.
 */
import { isUuidv7 } from '../../protocol/id.ts'
import type { JsonValue } from '../canonical.ts'
import type { Entry } from '../entries/entry.ts'
import { type Chain, chainReader, examineLine, shapeOf } from './scrutiny-form.ts'

export interface Fact {
  /** As numbered in the entry. */
  readonly seq: number
  /** Milliseconds since the epoch. */
  readonly ms: number
  readonly kind: string
  readonly log?: string
  readonly req?: string
  /** Run of the gateway process. */
  readonly boot?: string
  readonly policySet?: string
  /** The grant that acts, or that the entry is about. */
  readonly grant?: string
  readonly chain?: Chain
  /** Issuer and name of the human, and the task, as far as they are named. */
  readonly who?: Who
  /** Of a call: allow or deny, and whether it names its target. */
  readonly decision?: { readonly effect: string; readonly hasTarget: boolean }
  readonly outcome?: { readonly lease: LeaseClaim | undefined }
  readonly made?: MadeGrant
  readonly ends?: End
  readonly lease?: LeaseClaim
  /** It came by way of the journal: what it tells of was before. */
  readonly isLate?: boolean
  /** Entries that have lost their text by now, from the first on. */
  readonly pruned?: number
  /** Of an entry of the log about itself. */
  readonly facts?: { readonly [name: string]: JsonValue }
}

export interface Who {
  readonly human: string | undefined
  readonly task: string | undefined
}

/** A credential for a time; `id` is its keyed hash. */
export interface LeaseClaim {
  readonly grant: string
  readonly id: string
  /** Epoch seconds. */
  readonly expires: number
  /** Milliseconds that its issuer took. */
  readonly tookMs: number
}

export interface MadeGrant {
  readonly id: string
  readonly task: string
  /** By the decision that stands in the entry. */
  readonly isDenied: boolean
  /** Some of what follows did not fit into the entry, and is unknown. */
  readonly isCut: boolean
  readonly parent: string | undefined
  readonly depth: number
  readonly maxDepth: number
  readonly delegable: boolean
  /** Epoch seconds. */
  readonly expires: number
  readonly step: string | undefined
  readonly authority: JsonValue
  /** Grants in its lineage, root first, itself last. */
  readonly line: readonly string[]
  /** Hashes of attestations by place in the lineage. */
  readonly attestations: readonly (string | undefined)[]
  /** The newest one, where its holder signed it. */
  readonly attestation: string | undefined
  /** What it took the place of, and whether that ended with it. */
  readonly replaces: string | undefined
  readonly isRenewal: boolean
}

/** From here on nothing under this mark may be used: a grant's id, a task's id, or `task/step`. */
export interface End {
  readonly mark: string
  /** A suspended task comes back when its grant is replaced. */
  readonly isSuspension: boolean
}

export interface Wrong {
  /** Place in the block. */
  readonly at: number
  readonly what: string
  readonly isFault: boolean
}

export type FactReader = (bytes: Buffer) => {
  readonly fact: Fact | undefined
  readonly wrong: Omit<Wrong, 'at'> | undefined
}

/** @param isWhole whether the shape of entries is looked at as well. */
export function factReader(isWhole: boolean): FactReader {
  const chainOf = chainReader()
  return (bytes) => {
    const examined = examineLine(bytes)
    const { entry, wrong } = examined
    const malformed = wrong === undefined ? undefined : { what: wrong, isFault: true }
    if (!entry) return { fact: undefined, wrong: malformed }
    const misshapen = malformed ?? (isWhole ? shapeOf(entry, examined.text) : undefined)
    try {
      return { fact: factOf(entry, chainOf(entry)), wrong: misshapen }
    } catch {
      // Well-formed JSON of another shape: nobody but a forger writes it.
      const what = 'the members of the entry are not of the shape that its kind has'
      return { fact: undefined, wrong: malformed ?? { what, isFault: true } }
    }
  }
}

const MAKING: ReadonlySet<string> = new Set(['grant.issued', 'grant.delegated', 'grant.replaced', 'breakglass.opened'])
/** What an emergency left in the journal: as whole entries, when the log could be written again. */
const LATE = 'breakglass.recorded_late'
const LEASING: ReadonlySet<string> = new Set(['lease.issued', 'lease.renewed', 'lease.captured'])

function factOf(entry: Entry, chain: Chain | undefined): Fact {
  const { seq, ts, kind, log, req, decision } = entry
  const set = decision?.policy_set
  const gw = entry.gw
  const own = entry.lineage !== undefined && Array.isArray(entry.lineage) ? entry.lineage.at(-1)?.grant : undefined
  return {
    seq,
    ms: Date.parse(ts),
    kind,
    ...(log !== undefined && { log }),
    ...(req !== undefined && { req }),
    ...(typeof gw?.boot === 'string' && { boot: gw.boot }),
    ...(typeof set === 'string' && kind !== LATE && { policySet: set }),
    ...(own !== undefined && { grant: own }),
    ...(chain && { chain }),
    ...(own !== undefined && { who: whoIn(entry) }),
    ...special(entry, own),
  }
}

/** Names that were cut are equal in none but their own kind of entry. */
function whoIn({ human, task }: Entry): Who {
  const isWhole = typeof human?.sub === 'string' && !/…\[\+|^sealed:/.test(`${human.sub}${human.iss}`)
  return { human: isWhole ? `${human.iss} ${human.sub}` : undefined, task: task?.id }
}

function special(entry: Entry, own: string | undefined): Partial<Fact> {
  const { kind, facts } = entry
  if (kind === 'call.decision')
    return { decision: { effect: entry.decision?.effect ?? '', hasTarget: entry.target !== undefined } }
  if (kind === 'call.outcome') return entry.outcome ? { outcome: { lease: leaseOfCall(entry, own) } } : {}
  if (kind === LATE) return late(entry, own)
  if (MAKING.has(kind)) return { made: madeOf(entry) }
  if (LEASING.has(kind)) return leased(entry)
  if (kind === 'policy.loaded') return typeof facts?.policy_set === 'string' ? { policySet: facts.policy_set } : {}
  if (kind === 'admin.bodies_pruned') return { pruned: Number(facts?.first) + Number(facts?.count) }
  if (kind.startsWith('log.')) return facts ? { facts } : {}
  const ends = endOf(entry)
  return ends ? { ends } : {}
}

/** Grants and credentials that later entries use. Calls are whole in it, and stand beside those that are counted. */
function late(entry: Entry, own: string | undefined): Partial<Fact> {
  const { of, facts } = entry.facts ?? {}
  if (typeof of !== 'string' || of.startsWith('call.')) return { isLate: true }
  return { ...special({ ...entry, kind: of, facts: (facts ?? {}) as NonNullable<Entry['facts']> }, own), isLate: true }
}

/** A service without credential has a lease of nothing. */
function leaseOfCall({ cred }: Entry, grant: string | undefined): LeaseClaim | undefined {
  if (!cred || grant === undefined || cred.provider === 'none' || typeof cred.cred_id !== 'string') return undefined
  return { grant, id: cred.cred_id, expires: cred.expires ?? Number.POSITIVE_INFINITY, tookMs: 0 }
}

function leased({ facts = {} }: Entry): Partial<Fact> {
  const { grant, cred_id: id, expires, ms } = facts
  if (typeof grant !== 'string' || typeof id !== 'string' || typeof expires !== 'number') return {}
  return { lease: { grant, id, expires, tookMs: typeof ms === 'number' ? ms : 0 } }
}

function madeOf(entry: Entry): MadeGrant {
  const { grant = { id: '' }, facts = {}, lineage } = entry
  const steps = Array.isArray(lineage) ? lineage : []
  const { attestation, replaces, reason } = facts
  return {
    id: grant.id ?? steps.at(-1)?.grant ?? '',
    task: entry.task?.id ?? '',
    isDenied: entry.decision?.effect === 'deny',
    isCut: grant.id === undefined || steps.length === 0,
    parent: grant.parent,
    depth: grant.depth ?? 0,
    maxDepth: grant.max_depth ?? 0,
    delegable: grant.delegable !== false,
    expires: grant.expires ?? Number.POSITIVE_INFINITY,
    step: grant.step,
    authority: (grant.authority ?? null) as JsonValue,
    line: steps.flatMap((step) => step.grant ?? []),
    attestations: steps.map(({ att }) => att),
    attestation: typeof attestation === 'string' ? attestation : undefined,
    replaces: typeof replaces === 'string' ? replaces : undefined,
    isRenewal: reason === 'renewed',
  }
}

function endOf({ kind, grant, task, facts = {} }: Entry): End | undefined {
  if (task === undefined) return undefined
  if (kind === 'task.suspended') return { mark: task.id, isSuspension: true }
  if (kind === 'task.step_completed') return { mark: `${task.id}/${facts.step}`, isSuspension: false }
  if (kind === 'breakglass.closed') return { mark: task.id, isSuspension: false }
  if (kind !== 'grant.revoked') return undefined
  // Nothing is left of a task whose root grant is revoked.
  const isTask = facts.instruction === 'task.complete' || grant?.depth === 0 || grant?.id === undefined
  return { mark: isTask ? task.id : grant.id, isSuspension: false }
}

/** When the call or instruction began, as far as its id tells: never after its entry. */
export function begunMs({ req, ms }: Pick<Fact, 'req' | 'ms'>): number {
  return Math.min(ms, madeMs(req) ?? ms)
}

/** Milliseconds since the epoch in an id of ours (RFC 9562 §5.7). */
export function madeMs(id: string | undefined): number | undefined {
  return id !== undefined && isUuidv7(id) ? Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16) : undefined
}
