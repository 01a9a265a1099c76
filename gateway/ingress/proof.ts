/**
 * Grants that are bound to a key, at the proxy door (RFC 9449 §7): `DPoP <grant>` in Proxy-Authorization, or on a reverse route in
 * Authorization, with a proof about this very request. A tunnel has many requests and one CONNECT, so nothing is proved there.
 */
import type { ServerResponse } from 'node:http'
import type { Confirmation } from '../protocol/grant.ts'
import type { Inbound } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { valuesOf } from '../protocol/raw-headers.ts'
import { DEFAULT_PORTS, formatAuthority } from '../protocol/target.ts'
import { serveInbound } from './desk.ts'
import type { Door } from './line.ts'
import { cutAbsolute } from './place.ts'
import { turnAway } from './refusal.ts'

/** Inside a tunnel the proof would have had to come with the CONNECT, which refuses it. */
export function isProvable({ mode, presented }: Inbound): boolean {
  return presented?.scheme === 'dpop' && mode !== 'intercept'
}

/** As `serveRequest`, after the proof has been verified. Never rejects. */
export async function serveProved(door: Door, inbound: Inbound, reply: ServerResponse): Promise<void> {
  let proof: Confirmation
  try {
    if (door.proofs !== undefined) reply.setHeader('DPoP-Nonce', door.proofs.nonce()) // RFC 9449 §8.2
    proof = await proofOf(door, inbound, reply.req.url as string)
  } catch (cause) {
    await turnAway(inbound, cause, door.rooms)
    return
  }
  await serveInbound(door, { ...inbound, proof: { ...inbound.proof, ...proof } }).catch(() => reply.destroy())
}

/** @throws {GatewayError} `dpop_invalid`, `dpop_nonce_required` */
async function proofOf(door: Door, inbound: Inbound, requestTarget: string): Promise<Confirmation> {
  const { rawHeaders, method, presented } = inbound
  const [dpop, ...more] = valuesOf(rawHeaders, 'dpop')
  if (dpop === undefined || more.length > 0 || door.proofs === undefined)
    throw new GatewayError(
      'dpop_invalid',
      'A grant is presented as DPoP, and no DPoP field or several come with it. Send one proof, made for this request with the key of the grant.',
    )
  const url = inbound.mode === 'reverse' ? door.url + pathOf(requestTarget) : absoluteOf(inbound)
  return door.proofs.proof(dpop, { method, url, ...(presented && { accessToken: presented.token }) })
}

/** Of a reverse route, as received: it may have come in absolute form through the proxy setting. */
function pathOf(requestTarget: string): string {
  return requestTarget.charCodeAt(0) === 0x2f ? requestTarget : cutAbsolute(requestTarget).rawPath
}

function absoluteOf({ scheme, host, port, rawPath }: Inbound): string {
  return `${scheme}://${formatAuthority({ host, port }, DEFAULT_PORTS[scheme])}${rawPath}`
}

/** What a CONNECT that presents a bound grant is told. */
export function unprovable(): GatewayError {
  return new GatewayError(
    'dpop_invalid',
    'A grant that is bound to a key cannot open a tunnel: a proof is about one request, and a tunnel has many. Use a reverse route, or send the request to the proxy in absolute form.',
  )
}
