/** What each entry must be by itself, and how it must fit to those before it. Sees every entry once, in order. */
import canonicalize from 'canonicalize'
import { MAX_ENTRY_BYTES, VERSION } from './canonical.ts'
import { type Entry, parseEntry } from './entry.ts'
import { CLOCK_SKEW_MS } from './sequencer.ts'

/** Kinds that only calls have; every other kind is free to come with the room that writes it. */
const CALL = { decision: 'call.decision', outcome: 'call.outcome' } as const
const ROOMS = /^(call|grant|task|lease|policy|log|admin|approval|leak|breakglass|settings)\./

export class Scrutiny {
  #latestMs = 0
  /** `req` of allowed calls without an outcome. Empties at each start: a call does not outlive its process. */
  readonly #open = new Set<string>()
  #cutShort = 0

  get openCalls(): number {
    return this.#open.size + this.#cutShort
  }

  /** @returns what is wrong with the entry, or undefined. */
  examine(bytes: Buffer, index: number): string | undefined {
    const entry = parseEntry(bytes)
    if (!entry) return 'the line is not an entry'
    return this.#form(entry, bytes) ?? this.#place(entry, index) ?? this.#pairing(entry)
  }

  #form(entry: Entry, bytes: Buffer): string | undefined {
    if (entry.v !== VERSION) return `the entry has the unknown version "${entry.v}"`
    if (!ROOMS.test(entry.kind)) return `the entry has the unknown kind "${entry.kind}"`
    if (bytes.length > MAX_ENTRY_BYTES) return `the entry has ${bytes.length} bytes, more than any that is written`
    return isCanonical(entry, bytes) ? undefined : 'the entry is not in canonical form (RFC 8785)'
  }

  #place(entry: Entry, index: number): string | undefined {
    if (entry.seq !== index) return `the entry is numbered ${entry.seq}, and stands at ${index}`
    const ms = Date.parse(entry.ts)
    if (Number.isNaN(ms)) return `the entry's time ${entry.ts} is none`
    const isLate = ms < this.#latestMs - CLOCK_SKEW_MS
    if (entry.kind === 'log.clock_set_back') this.#latestMs = ms
    else if (isLate) return `the entry is of ${entry.ts}, more than 30 s before one in front of it`
    this.#latestMs = Math.max(this.#latestMs, ms)
    return undefined
  }

  #pairing(entry: Entry): string | undefined {
    if (entry.kind === 'log.opened') {
      this.#cutShort += this.#open.size
      this.#open.clear()
    }
    if (entry.kind !== CALL.decision && entry.kind !== CALL.outcome) return undefined
    const req = entry.req
    if (typeof req !== 'string' || req === '') return 'the entry of a call names no call'
    return entry.kind === CALL.decision ? this.#decision(entry, req) : this.#outcome(entry, req)
  }

  #decision({ decision, target }: Entry, req: string): string | undefined {
    if (decision?.effect !== 'allow' && decision?.effect !== 'deny') return 'the decision neither allows nor denies'
    if (!target) return 'the decision names no target'
    if (this.#open.has(req)) return `the call ${req} was decided before`
    if (decision.effect === 'allow') this.#open.add(req)
    return undefined
  }

  #outcome({ outcome }: Entry, req: string): string | undefined {
    if (!outcome) return 'the outcome says nothing'
    return this.#open.delete(req)
      ? undefined
      : `the outcome of call ${req} has no decision in front of it that allowed it, or is its second`
  }
}

function isCanonical(entry: Entry, bytes: Buffer): boolean {
  try {
    return Buffer.from(canonicalize(entry) ?? '').equals(bytes)
  } catch {
    // A lone surrogate, written as an escape.
    return false
  }
}
