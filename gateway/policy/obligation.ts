/** What the yes of several policies obliges to together: the strictest of each. Pure; order and repetition change nothing. */
import type { ApprovalTerms } from '../protocol/approval.ts'
import { DOWNSCOPES, type Obligations, type Rate } from '../protocol/decision.ts'

export const NO_OBLIGATIONS: Obligations = Object.freeze({ ttlS: undefined, singleUse: false })

/**
 * Strictest wins: the shortest life, the fewest delegations, once if any policy says once, every rate, every pointer, everybody
 * who has to consent or to be told; what one refuses is not merely logged.
 */
export function combine(all: readonly Obligations[]): Obligations {
  const said = all.filter((one) => one !== NO_OBLIGATIONS)
  if (said.length < 2) return said[0] ?? NO_OBLIGATIONS
  const approval = combineApprovals(said.flatMap((one) => one.approval ?? []))
  const maxDepth = least(said.map((one) => one.maxDepth))
  const foreignCredentials = strictest(said, 'foreignCredentials', ['log', 'refuse'])
  const downscope = strictest(said, 'downscope', DOWNSCOPES)
  const revoke = strictest(said, 'revoke', ['grant', 'task'])
  const rates = tightest(said.flatMap((one) => one.rates ?? []))
  const redact = united(said.map((one) => one.redact))
  const notify = united(said.map((one) => one.notify))
  return {
    ttlS: least(said.map((one) => one.ttlS)),
    singleUse: said.some((one) => one.singleUse),
    ...(maxDepth !== undefined && { maxDepth }),
    ...(foreignCredentials !== undefined && { foreignCredentials }),
    ...(approval !== undefined && { approval }),
    ...(rates.length > 0 && { rates }),
    ...(said.some((one) => one.readOnly) && { readOnly: true }),
    ...(downscope !== undefined && { downscope }),
    ...(redact.length > 0 && { redact }),
    ...(notify.length > 0 && { notify }),
    ...(said.some((one) => one.log) && { log: 'full' }),
    ...(revoke !== undefined && { revoke }),
  }
}

/** What nobody bounds stays unbounded. */
function least(bounds: readonly (number | undefined)[]): number | undefined {
  const given = bounds.filter((bound) => bound !== undefined)
  return given.length === 0 ? undefined : Math.min(...given)
}

/** @param scale least first. */
function strictest<K extends 'foreignCredentials' | 'downscope' | 'revoke'>(
  all: readonly Obligations[],
  name: K,
  scale: readonly NonNullable<Obligations[K]>[],
): NonNullable<Obligations[K]> | undefined {
  return scale.findLast((step) => all.some((one) => one[name] === step))
}

function united(lists: readonly (readonly string[] | undefined)[]): readonly string[] {
  return [...new Set(lists.flatMap((list) => list ?? []))].sort()
}

/** One that allows no more in no less time makes another needless; of others neither is the stricter one. */
function tightest(rates: readonly Rate[]): readonly Rate[] {
  const sorted = rates.toSorted((a, b) => a.n - b.n || b.perS - a.perS)
  return sorted.filter((rate, i) => !sorted.slice(0, i).some((other) => other.perS >= rate.perS))
}

/** Once, if one of them says once: a request that is approved for a while is approved for longer. */
function combineApprovals(all: readonly ApprovalTerms[]): ApprovalTerms | undefined {
  if (all.length === 0) return undefined
  return {
    from: united(all.map(({ from }) => from)),
    count: Math.max(...all.map(({ count }) => count)),
    reuseS: all.some(({ reuseS }) => reuseS === undefined) ? undefined : least(all.map(({ reuseS }) => reuseS)),
    fields: united(all.map(({ fields }) => fields)),
  }
}
