/** Obligations of a yes that can be seen not to be kept before anything is done: then it is a no. Texts are for the agent. */
import type { Ask, Needs, Obligations } from '../../protocol/decision.ts'
import type { ProblemCode } from '../../protocol/problem.ts'
import { asked } from '../../protocol/reach.ts'

interface Unfulfilled {
  readonly code: ProblemCode
  readonly detail: string
}

export function unfulfilled(
  ask: Ask,
  { maxDepth, readOnly, redact }: Obligations,
  needs: Needs,
): Unfulfilled | undefined {
  const { grant, endpoint } = ask
  if (maxDepth !== undefined && grant.depth > maxDepth)
    return no(
      ask,
      `Policy allows it down to depth ${maxDepth} below the human's agent; this grant is at depth ${grant.depth}. Let an agent further up call it.`,
    )
  if (readOnly === true && endpoint.operation.access !== 'read')
    return no(ask, 'Policy allows only what reads here. Ask whoever keeps the policies of this gateway.')
  if (ask.isUpgrade !== true) return undefined
  if (!endpoint.operation.websocket)
    return noWebSocket(
      ask,
      'which its service file does not offer as a WebSocket. Use its HTTP form, such as server-sent events.',
    )
  if (redact !== undefined)
    return noWebSocket(
      ask,
      'of whose answer policy keeps something back, which frames cannot be searched for. Use its HTTP form.',
    )
  if (needs.past)
    return noWebSocket(
      ask,
      'on which policy looks at earlier calls, and a WebSocket is decided before the later ones. Use its HTTP form.',
    )
  return undefined
}

export function unknownPast(ask: Ask): string {
  return `${asked(ask)}. Policy looks at earlier calls of the task, and those of this one are not known: it was opened before such a policy was in force. Open a new task.`
}

function no(ask: Ask, why: string): Unfulfilled {
  return { code: 'policy_denied', detail: `${asked(ask)}. ${why}` }
}

function noWebSocket(ask: Ask, why: string): Unfulfilled {
  return { code: 'upgrade_refused', detail: `${asked(ask)}, ${why}` }
}
