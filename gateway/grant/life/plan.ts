/** The plan of a task: patterns of the operations that its intent foresees. It gives no authority; policy looks at it. Pure. */
import { isOperationPattern, patternCovers } from '../../protocol/authority.ts'
import type { Task } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { invalid, quote } from '../terms.ts'

const MAX_PATTERNS = 100

/** @throws {GatewayError} `instruction_invalid` */
export function planOf(asked: readonly string[] | undefined, knows: (pattern: string) => boolean): Pick<Task, 'plan'> {
  if (asked === undefined) return {}
  if (asked.length === 0 || asked.length > MAX_PATTERNS)
    throw invalid(`plan has ${asked.length} entries; allowed are 1 to ${MAX_PATTERNS} operations`)
  const unknown = asked.filter((pattern) => !isOperationPattern(pattern) || !knows(pattern))
  if (unknown.length > 0)
    throw invalid(
      `plan names ${unknown.slice(0, 8).map(quote).join(', ')}, and the catalogue has no operation under that; write operations such as github:issues.read`,
    )
  return { plan: [...new Set(asked)].sort() }
}

/**
 * What is foreseen after a change of intent. The human may plan anew; a holder stays within what was foreseen, so that nothing is on
 * plan because an agent has said so later. @throws {GatewayError} `delegation_refused`
 */
export function planAfter(before: Pick<Task, 'plan'>, next: Pick<Task, 'plan'>, isHuman: boolean): Pick<Task, 'plan'> {
  if (isHuman) return next
  if (next.plan === undefined || before.plan === undefined)
    return before.plan === undefined ? {} : { plan: before.plan }
  const { plan } = before
  const beyond = next.plan.filter((wanted) => !plan.some((pattern) => patternCovers(pattern, wanted)))
  if (beyond.length === 0) return next
  throw new GatewayError(
    'delegation_refused',
    `The task was opened with a plan, and ${beyond.slice(0, 8).map(quote).join(', ')} is not in it. Only the human who authorised the task plans anew.`,
  )
}
