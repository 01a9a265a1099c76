/**
 * Handles and grants of a gateway in what goes to an upstream. Whoever reads one there could act with it, so none leaves, whoever's
 * it is. Pure. An agent that means to can spell it otherwise; this is for the one that does not know better.
 */
import { grantsIn } from '../protocol/grant-text.ts'
import type { RawHeaders } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'

/** A handle: three characters and 43. */
const SHORTEST = 46
function carriesGrant(text: string): boolean {
  return grantsIn(text).next().done === false
}

/** The same of bytes, most of which are passed over by one search for each beginning. */
export function bytesCarryGrant(bytes: Buffer): boolean {
  return (bytes.indexOf('kh_') !== -1 || bytes.indexOf('.eyJ') !== -1) && carriesGrant(bytes.toString('latin1'))
}

/** @throws {GatewayError} `foreign_credential` when one is in what leaves of a head. */
export function requireNoGrant(path: string, headers: RawHeaders): void {
  if (path.length >= SHORTEST && carriesGrant(path)) throw ownGrant('its path or query')
  for (let i = 1; i < headers.length; i += 2) {
    const value = headers[i] as string
    if (value.length >= SHORTEST && carriesGrant(value)) throw ownGrant(`its field ${headers[i - 1]}`)
  }
}

/** The same for everybody's: whose it is, is nobody's business. */
export function ownGrant(where: string): GatewayError {
  const refusal = new GatewayError(
    'foreign_credential',
    `The request carries a handle or a grant of a gateway in ${where}. It belongs into Proxy-Authorization, or into the credential slot on a reverse route, and goes no further.`,
  )
  return Object.assign(refusal, { sightings: [{ rule: 'keyless', where: where.replace(/^its /, '') }] })
}
