/**
 * Leases of single-use operations: a credential for one call, neither cached nor shared, given back to its issuer when the
 * call is over. JavaScript cannot overwrite a string: what remains is unreachable and ends at the issuer or by expiring.
 */
import { fateOf } from './burn.ts'
import type { Claim } from './claim.ts'
import { attachHeld, type Cause, type Held, type LeaseEnd, resend } from './held.ts'
import { type IssueRooms, issueAlone } from './issue.ts'
import type { Lease } from './lease.ts'

export async function acquireOnce(rooms: IssueRooms, claim: Claim): Promise<Lease> {
  const used: Held[] = []
  let isReplayed = false
  const next = async (cause: Cause): Promise<Held> => {
    const held = await issueAlone(rooms, claim, cause, end)
    used.push(held)
    return held
  }
  const end: LeaseEnd = {
    async reissue(held, plain, answer) {
      if (isReplayed) return null
      isReplayed = true
      if (held.claim.provider.accommodates?.(held.credential, answer)) return attachHeld(held, plain)
      return resend(held, plain, () => next('rejected'))
    },
    burn: fateOf, // `release` sees to it
    release() {
      for (const held of used.splice(0)) rooms.discard({ ...held, reason: 'single_use' })
    },
  }
  return (await next('needed')).miss
}
