/** The chain of authority as a sentence: who authorised whom, for which task, and what was called. Pure. */
import { DEFAULT_PORTS, formatAuthority } from '../protocol/target.ts'
import type { Entry, Step } from './entry.ts'

/**
 * "ana authorised spiffe://…/triage for task “triage issue 42”, spiffe://…/triage called GET api.github.com/repos/acme/site/issues (github:issues.read): 200".
 * `outcome` is the entry that ended the call, if there is one. Texts come from agents: print them through `printable`.
 */
export function sentence(decision: Entry, outcome?: Entry): string {
  return `${chain(decision)}${deed(decision)}: ${result(decision, outcome)}`
}

/** The actors in order, the human first. */
export function actors(entry: Entry): string[] {
  const steps = entry.lineage ?? []
  return steps.map((step) => (step.cut === undefined ? nameOf(step, entry) : `(${step.cut} more)`))
}

function chain(entry: Entry): string {
  const [human, first, ...rest] = actors(entry)
  if (human === undefined || first === undefined)
    return `someone unknown at ${entry.client?.ip ?? 'an unknown address'} `
  let text = `${human} authorised ${first} for task “${entry.task?.purpose ?? ''}”, `
  let from = first
  for (const to of rest) {
    text += `${from} delegated to ${to}, `
    from = to
  }
  return `${text}${from} `
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
