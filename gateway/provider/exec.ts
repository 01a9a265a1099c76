/**
 * Credentials that a command on the gateway's side prints: of a vault that has no provider here, of a vendor's own tool. Run without a
 * shell, in the directory of the settings, for at most 10 s and 64 KiB (`reference.ts`). Ephemeral only when the command says when
 * they end.
 */
import { z } from 'zod'
import type { Clock } from '../protocol/clock.ts'
import { isExecutable, readPrinted } from './exec-output.ts'
import type { Placement } from './placement/placement.ts'
import type { Provider } from './provider.ts'
import { type ReadSecret, referenceIdentity } from './reference.ts'
import { credentialTerms } from './terms.ts'

export const execSchema = z.strictObject({
  provider: z.literal('exec'),
  ...credentialTerms,
  /** Program and arguments, one by one; no shell reads them. */
  command: z.array(z.string()).min(1).refine(isExecutable, { error: 'has a NUL character, or no program' }),
  /** Seconds after which the command is run again when it does not say when its credential ends. Default: as long as a lease. */
  ttl_s: z.int().min(10).max(3600).optional(),
})

export type ExecConfig = z.output<typeof execSchema>

export interface ExecTools {
  readonly placement: Placement
  readonly readSecret: ReadSecret
  readonly clock: Clock
}

export function createExec({ command, ttl_s: ttlS }: ExecConfig, tools: ExecTools): Provider {
  return {
    name: 'exec',
    narrows: 'none',
    identity: JSON.stringify(['exec', ...referenceIdentity({ exec: command }), ttlS ?? null]),
    async issue(_request, signal) {
      // Counted from before the command, so that its own time shortens the life and never lengthens it.
      const nowS = Math.floor(tools.clock.nowMs() / 1000)
      return readPrinted(await tools.readSecret({ exec: command }, signal), nowS, ttlS)
    },
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
    derived: (credential, service) => tools.placement.derived(credential, service),
  }
}
