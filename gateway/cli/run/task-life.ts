/**
 * The life of a run's task while its command runs: heartbeats, and a fresh grant when the one there is nears its end, or when
 * somebody resumed the task or gave it another intent. Decides nothing: each fresh grant is for the gateway's policy to give.
 */
import type { HeartbeatView, IssuedView, OpenedTask } from '../../protocol/control.ts'
import { GatewayError, problems } from '../../protocol/problem.ts'

/** A client that is refused may ask again at once, and again. */
const CHECK_MS = 500
/** Renewed while this part of its life is left, so that policy, or a gateway that is away, has time. */
const RENEW_AT = 0.25

export interface Living {
  readonly control: {
    heartbeat(task: string): Promise<HeartbeatView>
    renewTask(task: string): Promise<IssuedView>
  }
  readonly task: OpenedTask
  /** The one who runs it set no bound of its own. */
  readonly isRenewable: boolean
  /** Told of each fresh grant; `graceMs` is how long the one before is still good. */
  onRenewed(issued: IssuedView, graceMs: number): void
  note(text: string): void
  say(text: string): void
}

export interface TaskLife {
  /** Look at the task now: something was refused. Safe to call often. */
  check(): void
  stop(): void
}

interface Present {
  readonly grant: string
  readonly bornMs: number
  readonly lifeMs: number
}

/** Three heartbeats in each period that the gateway allows for one. */
export function keepAlive(living: Living): TaskLife {
  const { control, task, isRenewable, note, say } = living
  let present = presentOf(task)
  /** the root grant beside which no other is given */
  let last: string | undefined
  let isBeating = false
  let lookedMs = 0

  const beat = async () => {
    const { grant, state } = await control.heartbeat(task.task)
    if (state === 'suspended' || grant === last) return
    const leftMs = present.bornMs + present.lifeMs - performance.now()
    const isOther = grant !== present.grant
    if (!isOther && (!isRenewable || leftMs > present.lifeMs * RENEW_AT)) return
    try {
      const issued = await control.renewTask(task.task)
      present = presentOf(issued)
      // Somebody else's instruction has ended the grant that was; what hangs on it is refused from now on.
      living.onRenewed(issued, isOther ? 0 : leftMs)
      note(`task ${task.task} goes on under grant ${issued.grant}`)
    } catch (cause) {
      if (!(cause instanceof GatewayError) || problems[cause.code].status >= 500) throw cause
      last = grant
      say(`the task gets no further grant: ${cause.detail} (${cause.code})`)
    }
  }
  const look = () => {
    if (isBeating) return
    isBeating = true
    lookedMs = performance.now()
    beat()
      .catch((cause: Error) => note(`heartbeat: ${cause.message}`))
      .finally(() => {
        isBeating = false
      })
  }
  const timer = setInterval(look, ((task.heartbeat_s ?? 15) * 1000) / 3)
  return {
    check() {
      if (performance.now() - lookedMs > CHECK_MS) look()
    },
    stop: () => clearInterval(timer),
  }
}

/** By this machine's steady clock: the gateway's may differ, and a wall clock can be set. */
function presentOf({ grant, expires_in }: IssuedView): Present {
  return { grant, bornMs: performance.now(), lifeMs: expires_in * 1000 }
}
