/**
 * Canaries in what an agent sends: nothing legitimate uses one, so whoever does has been where bait lies. Every field is looked at, those
 * included that go no further. Says the place, never the value, and tells the agent no more than that of any credential.
 */

import type { Grant } from '../protocol/grant.ts'
import type { CanarySighting } from '../protocol/leak.ts'
import type { Inbound } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { readings } from './readings.ts'

export interface Baits {
  /** @see Canaries.find */
  find(text: string): string | undefined
  /** Must not throw. */
  seen(used: UsedCanary): void
}

export interface UsedCanary extends CanarySighting {
  readonly inbound: Inbound
  /** Undefined: whoever it is did not say so, or was not believed. */
  readonly grant: Grant | undefined
}

/** Looks into one text of a request. @returns why it goes no further. */
export type Found = (text: string, where: string) => GatewayError | undefined

export function seeking({ find, seen }: Baits, inbound: Inbound, grant: Grant | undefined): Found {
  return (text, where) => {
    const canary = find(readings(text))
    if (canary === undefined) return undefined
    seen({ canary, where, inbound, grant })
    const refusal = new GatewayError(
      'foreign_credential',
      `The request carries a credential that may not be used, in ${where}. Leave it out; the gateway attaches the credential that is needed.`,
    )
    return Object.assign(refusal, { sightings: [{ rule: CANARY, where }] })
  }
}

export const CANARY = 'canary'

/** No look is shorter. */
const SHORTEST = 20

/** The first one in its fields, its path and query, or in place of a grant. */
export function inHead({ rawHeaders, rawPath, presented }: Inbound, found: Found): GatewayError | undefined {
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const value = rawHeaders[i + 1] as string
    const refusal = value.length < SHORTEST ? undefined : found(value, `header ${rawHeaders[i]?.toLowerCase()}`)
    if (refusal !== undefined) return refusal
  }
  if (presented !== null && presented.token.length >= SHORTEST) {
    const refusal = found(presented.token, 'grant')
    if (refusal !== undefined) return refusal
  }
  return rawPath.length < SHORTEST ? undefined : found(rawPath, 'path or query')
}
