/** What whoever asks, or decides, is told when it cannot be. A time that ran out and a no are never told alike. */
import type { ApprovalTerms, ApprovalView } from '../protocol/approval.ts'
import { INTERVAL_S } from '../protocol/control-approvals.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { ApprovalRecord } from './record.ts'

const listed = (names: readonly string[]) => names.join(', ')

export type Words = ReturnType<typeof refusals>

export function refusals({ statusUrl }: { statusUrl(id: string): string }) {
  const about = ({ id }: Pick<ApprovalRecord, 'id'>) => ({
    approval: { id, status_url: statusUrl(id), interval: INTERVAL_S },
  })
  return {
    required(record: ApprovalRecord): GatewayError {
      const { terms, facts, untilMs } = record
      const who = terms.from.length === 0 ? '' : ` of ${listed(terms.from)}`
      return new GatewayError(
        'approval_required',
        `${facts.operation} has to be approved by ${terms.count} ${terms.count === 1 ? 'person' : 'people'}${who}, who have been asked and can answer until ${new Date(untilMs).toISOString()}. Nothing was sent. The very same request passes once it is approved; changed in anything, it asks again.`,
        { retryAfterMs: INTERVAL_S * 1000, advice: about(record) },
      )
    },
    denied: (record: ApprovalRecord) =>
      new GatewayError(
        'approval_denied',
        `A human looked at exactly this request (${record.facts.operation}) and said no. Nothing was sent. Do not repeat it: do something else, or ask the human what to do instead.`,
        { advice: about(record) },
      ),
    expired: (record: ApprovalRecord) =>
      new GatewayError(
        'approval_expired',
        `Nobody said yes or no to ${record.facts.operation} in time. Nothing was sent. Make the same request again to ask again.`,
        { advice: about(record) },
      ),
    gone: () =>
      new GatewayError(
        'approval_required',
        'Another call has taken up the approval, or what has to be approved has changed meanwhile. Nothing was sent. Make the request again: it asks anew.',
      ),
    nobody: (operation: string, groups: readonly string[]) =>
      new GatewayError(
        'approval_required',
        `${operation} has to be approved by ${listed(groups)}, and the settings of this gateway name nobody there. Ask its operator to add people to approvals.groups.`,
      ),
    tooFew: (operation: string, { from, count }: ApprovalTerms, most: number) =>
      new GatewayError(
        'approval_required',
        `${operation} has to be approved by ${count} people of ${listed(from) || 'nobody'}, and there are ${most} at most, so nobody was asked. Ask the operator of this gateway to add people to approvals.groups, or to ask for fewer in the policy.`,
      ),
    tooMany: (most: number) =>
      new GatewayError(
        'too_many_requests',
        `The agent, or its task, has ${most} approvals pending, or has asked for too many of them lately. Wait for those, or work without.`,
        { retryAfterMs: 60_000 },
      ),
    unknown: () =>
      new GatewayError(
        'approval_unknown',
        'No approval has this id here, or it was over long ago. `keyless approvals list` shows those that wait.',
      ),
    notBy: (hindrance: string) => new GatewayError('approver_refused', hindrance),
    closed: ({ id, state, why }: ApprovalView) =>
      new GatewayError(
        'approval_closed',
        `The approval ${id} is ${state}${why === 'grant_ended' ? ', because the task or grant that asked has ended' : ''}: nothing can be decided about it any more.`,
      ),
  }
}
