/** Decisions as policy can be asked about them again, from the entries of a log in their order. */

import type { Entry } from '../../audit/entries/entry.ts'
import type { Recorded } from '../../policy/tools/recorded.ts'
import { isCovered } from '../../policy/tools/replay.ts'
import type { Kind } from '../../policy/tools/supposed.ts'
import { callFacts, issuingFacts, type Made, madeIn, standing, whole } from './facts.ts'

const MAKING: Readonly<Record<string, Exclude<Kind, 'call'>>> = {
  'grant.issued': 'mint',
  'grant.replaced': 'mint',
  'grant.delegated': 'delegate',
}

/** Codes by which policy itself refuses; with any other one it had said yes, or had not been asked. */
const BY_POLICY = new Set(['policy_denied', 'host_unmanaged', 'delegation_refused'])
/** Codes of the grant, which comes before policy: `protocol/reach.ts`. */
const BY_GRANT = new Set(['scope_exceeded', 'constraint_unmet', 'grant_invalid'])

export class Recording {
  /** id → what is known of it */
  readonly #grants = new Map<string, Made>()

  /** @returns the decision in this entry, if it has one on which policies have a say. */
  read(entry: Entry): Recorded | undefined {
    if (entry.kind === 'call.decision') return this.#call(entry)
    // Custodians decide on it before policy does; calls under it are ordinary decisions.
    if (entry.kind === 'breakglass.opened' && typeof entry.grant?.id === 'string')
      this.#grants.set(entry.grant.id, madeIn(entry))
    const kind = MAKING[entry.kind] ?? deniedKind(entry)
    if (kind === undefined || typeof entry.grant?.id !== 'string') return undefined
    const made = madeIn(entry)
    if (entry.kind in MAKING) this.#grants.set(entry.grant.id, made)
    return grantDecision(entry, kind, made)
  }

  #call(entry: Entry): Recorded | undefined {
    const { target, decision, lineage, req } = entry
    const operation = whole(target?.operation)
    if (target === undefined || operation === undefined || decision === undefined || lineage === undefined)
      return undefined
    const acting = lineage.at(-1)
    const made = this.#grants.get(acting?.grant ?? '')
    const facts = new Map([...(made?.facts ?? []), ...standing(entry), ...callFacts(entry, made)])
    const { scheme, host, port, method, path } = target
    const isPlace = [host, method, path].every((text) => whole(text) !== undefined)
    return {
      ...common(entry),
      kind: 'call',
      agent: acting?.id ?? '',
      asked: [operation],
      ...(isPlace && { place: { method, host, port, path, scheme: scheme as 'https' } }),
      req: req ?? '',
      effect: effectOf(entry, made && isCovered(made.operations, operation)),
      ...(this.#mayTakeConsent(entry) && { isByGrant: true as const }),
      facts,
    }
  }

  /** Whether the consent that a call took was asked for by a grant of its chain, or that is not known. */
  #mayTakeConsent({ lineage = [] }: Entry): boolean {
    return lineage.some(({ grant }) => grant !== undefined && this.#grants.get(grant)?.takesConsent !== false)
  }
}

function common(entry: Entry) {
  const { seq, ts, req = '', decision } = entry
  const obligations = (decision as { obligations?: Readonly<Record<string, unknown>> } | undefined)?.obligations
  return {
    ...{ seq, ts, req },
    code: decision?.code,
    policyIds: decision?.policy_ids ?? [],
    obligations: isByEngine(decision) ? undefined : obligations,
  }
}

/** Engines outside (`policy.engines`) are asked once policies have said yes; to what they obliged, such an entry does not say. */
function isByEngine(decision: Entry['decision']): boolean {
  return decision?.effect === 'deny' && decision.policy_ids?.some((id) => id.startsWith('engine:')) === true
}

/** @param isCovered whether the grant covers it; undefined: not known. */
function effectOf({ decision }: Entry, isCovered: boolean | undefined): Recorded['effect'] {
  if (decision === undefined || decision.policy_set === undefined) return 'none'
  if (decision.effect === 'allow' || isByEngine(decision)) return 'allow'
  const { code = '', policy_ids: ids = [] } = decision
  if (BY_GRANT.has(code)) return 'none'
  // Also what the grant does not cover at a host of no service is refused with this code, before policy is asked.
  if (code === 'host_unmanaged' && ids.length === 0)
    return isCovered === undefined ? 'unread' : isCovered ? 'deny' : 'none'
  return BY_POLICY.has(code) ? 'deny' : 'allow'
}

function deniedKind({ kind, facts, grant }: Entry): Exclude<Kind, 'call'> | undefined {
  if (kind !== 'grant.denied' || grant === undefined) return undefined
  const instruction = String(facts?.instruction ?? '')
  if (instruction === 'grant.delegate') return 'delegate'
  return instruction.startsWith('task.') ? 'mint' : (grant.depth ?? 0) > 0 ? 'delegate' : 'mint'
}

function grantDecision(entry: Entry, kind: Exclude<Kind, 'call'>, made: Made): Recorded {
  const { decision, lineage = [], grant } = entry
  const code = decision?.code
  const isAsked = decision?.policy_set !== undefined
  const effect = !isAsked
    ? 'none'
    : decision?.effect === 'allow' || isByEngine(decision)
      ? 'allow'
      : BY_POLICY.has(code ?? '')
        ? 'deny'
        : 'allow'
  const facts = new Map([...made.facts, ...standing(entry), ...issuingFacts(entry, kind)])
  const agent = lineage.at(-1)?.id ?? ''
  const asked = made.operations
  return {
    ...common(entry),
    kind,
    agent,
    asked,
    maxDepth: kind === 'mint' ? grant?.max_depth : undefined,
    effect,
    facts,
  }
}
