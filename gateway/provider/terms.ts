/** What every credential in settings can say besides its provider's own. */
import { z } from 'zod'

export const credentialTerms = {
  /**
   * Name of another entry of `credentials` that is asked when this one's issuer cannot be reached (never when it says no). Default:
   * none. What it issues is recorded under its own name.
   */
  fallback: z
    .string()
    .regex(/^[a-z0-9][a-z0-9_-]*$/)
    .optional(),
} as const
