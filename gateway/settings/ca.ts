/** The certificate authority in `keyless.yaml`: for whom it may sign, and for how long. */
import { z } from 'zod'

/** Days: the life of a root if settings say nothing. Clients keep roots in files; agents live for hours. */
const DEFAULT_DAYS = 90

export const caSchema = z
  .strictObject({
    names: z
      .enum(['services', 'any'])
      .optional()
      .describe(
        'services (default): the CA on disk may sign for the hosts of the services alone; other hosts get a CA that only this process has. any: it may sign for every host, so whoever steals it can impersonate every host to agents.',
      ),
    days: z
      .int()
      .min(1)
      .max(365)
      .optional()
      .describe(
        `Days a CA certificate lives, 1 to 365. Default ${DEFAULT_DAYS}. A successor is published when a third of that is left.`,
      ),
  })
  .describe('The certificate authority of intercepted TLS.')

export interface CaSettings {
  /** Default `services`. */
  readonly names: 'services' | 'any'
  /** Default 90, 1 to 365. */
  readonly days: number
}

export function caOf({ names = 'services', days = DEFAULT_DAYS }: z.output<typeof caSchema> = {}): CaSettings {
  return { names, days }
}
