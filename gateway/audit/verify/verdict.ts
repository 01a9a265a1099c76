/** What a verifier says in the end: faults, which an honest gateway cannot leave behind, and warnings, which a crash can. */

/** What was checked when something was found; docs/log.md says what each means. */
export type Check =
  | 'file'
  | 'checkpoint'
  | 'key'
  | 'witness'
  | 'remembered'
  | 'age'
  | 'hash'
  | 'form'
  | 'order'
  | 'run'
  | 'heartbeat'
  | 'call'
  | 'policy'
  | 'grant'
  | 'ended'
  | 'lease'

export interface Fault {
  /** Entry that is wrong; null when it cannot be told which. */
  readonly index: number | null
  readonly what: string
  readonly check: Check
}

export interface Verdict {
  readonly ok: boolean
  /** Why the log cannot be judged at all: a file is absent or unreadable. Then `ok` is false and nothing else is known. */
  readonly unreadable: string | null
  readonly dir: string
  readonly origin: string | null
  /** Verifier key that the newest checkpoint is signed with. */
  readonly key: string | null
  /** How often the key changed hands since the one that was trusted; each change is proven. */
  readonly key_changes: number
  /** Whole entries in the log, pruned ones included. */
  readonly entries: number
  /** Entries that the signed checkpoint covers. */
  readonly covered: number
  /** Entries after it: well formed, but not signed yet. */
  readonly uncovered: number
  /** Entries whose text was removed by retention; their hashes are checked. */
  readonly pruned: number
  /** Bytes after the last whole entry: a write under way, or one that a crash tore. */
  readonly torn_bytes: number
  readonly root: string | null
  /** Time of the last entry that is covered, RFC 3339. */
  readonly newest: string | null
  /** Who cosigned the newest checkpoint that enough witnesses stand behind, and how many entries it covers. */
  readonly witnessed: { readonly size: number; readonly by: readonly string[]; readonly at: string } | null
  /** What was remembered of an earlier verification, and now holds. */
  readonly remembered: { readonly size: number; readonly at: string } | null
  /** Calls, allowed or refused. */
  readonly calls: number
  readonly grants: number
  readonly leases: number
  /** Calls that were allowed and have no outcome: under way, or cut short by a crash. */
  readonly open_calls: number
  readonly first_bad: Fault | null
  /** The first 20, in order. */
  readonly faults: readonly Fault[]
  readonly fault_count: number
  /** The first 20 of what an honest gateway can leave behind, and somebody should look at. */
  readonly warnings: readonly Fault[]
  readonly warning_count: number
}

const MAX_SHOWN = 20
/** Kept to find the first ones among them; thousands of follow-up faults say nothing new. */
const MAX_KEPT = 200

export class Findings {
  readonly #faults: Fault[] = []
  readonly #warnings: Fault[] = []
  #faultCount = 0
  #warningCount = 0

  fault(check: Check, index: number | null, what: string): void {
    // Two heads that do not fit, such as the checkpoint and a remembered one, are one finding.
    if (this.#faults.some((fault) => fault.index === index && fault.what === what)) return
    this.#faultCount += 1
    if (this.#faults.length < MAX_KEPT) this.#faults.push({ index, what, check })
  }

  warn(check: Check, index: number | null, what: string): void {
    this.#warningCount += 1
    if (this.#warnings.length < MAX_KEPT) this.#warnings.push({ index, what, check })
  }

  get isSound(): boolean {
    return this.#faultCount === 0
  }

  summary(): Pick<Verdict, 'first_bad' | 'faults' | 'fault_count' | 'warnings' | 'warning_count'> {
    const faults = first(this.#faults)
    return {
      first_bad: faults.find((fault) => fault.index !== null) ?? faults[0] ?? null,
      faults,
      fault_count: this.#faultCount,
      warnings: first(this.#warnings),
      warning_count: this.#warningCount,
    }
  }
}

function first(findings: readonly Fault[]): Fault[] {
  return findings.toSorted((a, b) => (a.index ?? -1) - (b.index ?? -1)).slice(0, MAX_SHOWN)
}

/** Exit code of the command: 0 sound, 1 tampered, 2 cannot be read. */
export function exitCode(...verdicts: readonly Verdict[]): 0 | 1 | 2 {
  if (verdicts.some(({ ok, unreadable }) => unreadable === null && !ok)) return 1
  return verdicts.every(({ ok }) => ok) ? 0 : 2
}
