/** Settings of what the gateway ends by itself: after a leak, and when an agent does what it never did. */
import { z } from 'zod'

const LEAK = ['lease', 'grant', 'task', 'agent'] as const
const ACTIONS = ['log', 'suspend', 'revoke'] as const

export type LeakEnds = (typeof LEAK)[number]
export type AnomalyAction = (typeof ACTIONS)[number]

const whole = (min: number, max: number) => z.int().min(min).max(max)

const anomaly = z
  .strictObject({
    action: z
      .enum(ACTIONS)
      .optional()
      .describe('What becomes of the task: only recorded, parked until a human resumes it, or ended. Default log.'),
    calls_per_minute: z
      .strictObject({
        times: z.number().min(1.5).max(1000).optional().describe('Times the mean of its own minutes. Default 5.'),
        at_least: whole(1, 1_000_000).optional().describe('And at least so many calls. Default 60.'),
      })
      .optional()
      .describe('Far more calls than it usually makes.'),
    new_operations: z
      .strictObject({
        count: whole(1, 10_000).optional().describe('So many operations that it never used … Default 5.'),
        within_s: whole(1, 86_400).optional().describe('… within so many seconds. Default 600.'),
        learning_s: whole(0, 2_592_000)
          .optional()
          .describe('For so many seconds everything may be new to a new agent. Default 86400.'),
      })
      .optional()
      .describe('Operations that it never used before.'),
  })
  .describe('Absent: nothing is looked at.')

/** The part of the settings file, `revocation:`. */
export const revocationSchema = z
  .strictObject({
    automatic: z
      .strictObject({
        leak: z
          .enum(LEAK)
          .optional()
          .describe(
            'What ends when a credential came back in an answer: the credential alone, also the grant, the task, or every grant of the agent. Default lease.',
          ),
        anomaly: anomaly.optional(),
      })
      .optional(),
  })
  .describe('What the gateway ends by itself.')

export interface RevocationSettings {
  readonly leak: LeakEnds
  /** Undefined: nothing is looked at. */
  readonly anomaly:
    | {
        readonly action: AnomalyAction
        readonly limits: {
          readonly callsPerMinute?: { readonly times: number; readonly atLeast: number }
          readonly newOperations?: { readonly count: number; readonly withinS: number; readonly learningS: number }
        }
      }
    | undefined
}

export function revocationOf({ automatic = {} }: z.infer<typeof revocationSchema>): RevocationSettings {
  const { leak = 'lease', anomaly } = automatic
  if (anomaly === undefined) return { leak, anomaly }
  const { action = 'log', calls_per_minute: calls, new_operations: news } = anomaly
  const { times = 5, at_least: atLeast = 60 } = calls ?? {}
  const { count = 5, within_s: withinS = 600, learning_s: learningS = 86_400 } = news ?? {}
  const limits = {
    ...(calls && { callsPerMinute: { times, atLeast } }),
    ...(news && { newOperations: { count, withinS, learningS } }),
  }
  return { leak, anomaly: { action, limits } }
}
