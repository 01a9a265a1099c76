/** The chain of authority as a sentence: who authorised whom, for which task, and what was called. Pure. */
import { DEFAULT_PORTS, formatAuthority } from '../../protocol/target.ts'
import type { Entry, Step } from './entry.ts'

/** Grant id → entry that made it: `reader.makers`. */
export type Makers = ReadonlyMap<string, Entry>

/**
 * "ana authorised spiffe://…/lead for task “triage issue 42”; spiffe://…/lead delegated to spiffe://…/triage; spiffe://…/triage
 * called GET api.github.com/repos/acme/site/issues (github:issues.read): 200". `outcome` is the entry that ended the call, if
 * there is one; with `makers`, every step names the policies it was allowed by. Texts come from agents: print them through
 * `printable`.
 */
export function sentence(decision: Entry, outcome?: Entry, makers?: Makers): string {
  const under = makers === undefined ? '' : policies(decision)
  return `${chain(decision, makers)}${deed(decision)}${under}: ${result(decision, outcome)}`
}

/** The actors in order, the human first. */
export function actors(entry: Entry): string[] {
  const steps = entry.lineage ?? []
  return steps.map((step) => (step.cut === undefined ? nameOf(step, entry) : `(${step.cut} more)`))
}

function chain(entry: Entry, makers: Makers | undefined): string {
  const [human, first, ...rest] = actors(entry)
  if (human === undefined || first === undefined)
    return `someone unknown at ${entry.client?.ip ?? 'an unknown address'} `
  const under = (n: number) => policies(makers?.get(entry.lineage?.[n]?.grant ?? ''))
  const hops = rest.map((to, i) => `${rest[i - 1] ?? first} delegated to ${to}${under(i + 2)}; `)
  return `${human} authorised ${first} for task “${entry.task?.purpose ?? ''}”${under(1)}; ${hops.join('')}${rest.at(-1) ?? first} `
}

function policies(entry: Entry | undefined): string {
  const ids = entry?.decision?.policy_ids ?? []
  return ids.length === 0 ? '' : ` under ${ids.length === 1 ? 'policy' : 'policies'} ${ids.join(', ')}`
}

function deed({ target }: Entry): string {
  return target ? `called ${placeOf(target)} (${target.operation ?? 'no known operation'})` : 'acted'
}

/** `GET api.github.com/repos/acme/site`: what is usual (TLS, its port) is left out. */
export function placeOf(target: NonNullable<Entry['target']>): string {
  const isTls = target.scheme === 'https'
  const authority = formatAuthority(target, isTls ? DEFAULT_PORTS.https : DEFAULT_PORTS.http)
  return `${target.method} ${isTls ? '' : `${target.scheme}://`}${authority}${target.path}`
}

function result({ decision }: Entry, end: Entry | undefined): string {
  if (decision && decision.effect !== 'allow')
    return `refused with ${decision.status ?? '?'}, ${decision.code ?? 'no code'}`
  if (!end?.outcome) return 'allowed, no outcome recorded yet'
  const { status, error } = end.outcome
  return error ? `${status ?? '?'}, ${error}` : String(status)
}

/** A human is known by the name at their issuer; the issuer is in the entry. */
function nameOf(step: Step, entry: Entry): string {
  return step.type === 'human' ? (entry.human?.sub ?? step.id ?? '?') : (step.id ?? '?')
}
