/**
 * Says that a call of the command waits for a human, once each: the command hangs meanwhile, or is told to come back, and who started it
 * is often who has to agree. Only what the gateway has verified is said, nothing that the agent says of itself.
 */
import type { ApprovalJson } from '../../protocol/control-approvals.ts'
import type { WhichGateway } from '../log/find-socket.ts'
import { counted } from '../table.ts'

/** A call is held for 25 s, by default. */
const LOOK_MS = 2_000

interface Waiting {
  readonly control: { approvals(): Promise<readonly ApprovalJson[]> }
  /** Id of the task: calls of agents that it delegates to are its own. */
  readonly task: string
  /** As `run` was told, so that the command that is named finds the same gateway. */
  readonly which: WhichGateway
  say(text: string): void
}

export function tellWaiting({ control, task, which, say }: Waiting): { stop(): void } {
  const told = new Set<string>()
  let isLooking = false
  const look = async () => {
    for (const approval of await control.approvals()) {
      if (approval.verified.task !== task || told.has(approval.id)) continue
      told.add(approval.id)
      say(lineOf(approval, which))
    }
  }
  const timer = setInterval(() => {
    if (isLooking) return
    isLooking = true
    look()
      .catch(() => undefined) // the gateway is away, and whoever hears of that is told by the heartbeat
      .finally(() => {
        isLooking = false
      })
  }, LOOK_MS)
  return { stop: () => clearInterval(timer) }
}

/** Paths and values are the agent's words, even where they are what would be sent: they are in `show`, one by one. */
function lineOf({ id, verified, asked, needed, hindrance }: ApprovalJson, { config, data }: WhichGateway): string {
  const { operation, request } = verified
  const what =
    request === undefined ? `a grant (${operation})` : `${operation} (${request.method} ${placeIn(request.url)})`
  const who = `${counted(needed, 'person', 'people')} of ${asked.from.join(', ') || 'anybody'}`
  const at = [...(config === undefined ? [] : ['-c', config]), ...(data === undefined ? [] : ['--data', data])]
  const how = `\`${['keyless approvals show', id, ...at].join(' ')}\` shows it`
  const then =
    hindrance === undefined ? '`approve` or `deny` in place of `show` decides' : `you cannot decide: ${hindrance}`
  return `${what} waits for ${who}: ${how}, ${then}`
}

function placeIn(url: string): string {
  const { protocol, host } = new URL(url)
  return `${protocol}//${host}`
}
