/** Things that may be presented only once, at all replicas together. */
import { hash } from 'node:crypto'
import { GatewayError } from '../protocol/problem.ts'
import type { Refuse } from './refuse.ts'

/** Replay cache (`GrantStore.once`): true the first time that a name is seen before `untilMs`, epoch milliseconds. */
export type Once = (name: string, untilMs: number) => boolean | Promise<boolean>

/**
 * Note a `jti` as used. A cache that cannot be asked means no: a replay must not come through while it is away.
 * @param of whose `jti` it is: two clients may choose the same.
 */
export async function useOnce(
  once: Once,
  used: { readonly of: string; readonly jti: string; readonly untilMs: number },
  refuse: Refuse,
): Promise<void> {
  let isFirst: boolean
  try {
    // Hashed, because both are the presenter's to choose: any length, any character.
    isFirst = await once(hash('sha256', `${used.of}\n${used.jti}`, 'base64url'), used.untilMs)
  } catch (cause) {
    if (cause instanceof GatewayError) throw cause
    const detail =
      'Whether this proof was used before cannot be looked up, so it is refused. Try again with a fresh one.'
    throw new GatewayError('store_unavailable', detail, { cause })
  }
  if (!isFirst) throw refuse('its jti was used before; sign a fresh one for every request')
}
