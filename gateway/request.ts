/**
 * FLOW 1: one proxied request. Decide, record, lease, attach: no credential exists before its decision is durable.
 * Forward, intercepted and reverse requests differ only in how their `Inbound` was made.
 */
import type { CallEvent, Receipt } from './audit/event.ts'
import type { Lease } from './lease/lease.ts'
import { type Permit, requirePermit } from './policy/decision.ts'
import type { Ask, Decision } from './protocol/decision.ts'
import type { Grant } from './protocol/grant.ts'
import type { Inbound, Outbound, Outcome, Reply } from './protocol/message.ts'
import { asGatewayError, type GatewayError } from './protocol/problem.ts'
import type { Endpoint } from './protocol/service.ts'
import { cleanse } from './upstream/headers.ts'

/** The few methods that the flow needs of each room; `house.ts` hands them over. */
export interface RequestRooms {
  readonly audit: { openCall(inbound: Inbound): CallEvent }
  readonly catalogue: { locate(inbound: Inbound): Endpoint }
  readonly grants: {
    authenticate(inbound: Inbound): Grant | Promise<Grant>
    debit(permit: Permit): void | Promise<void>
  }
  readonly policy: { evaluate(ask: Ask): Decision }
  readonly leases: { acquire(permit: Permit, receipt: Receipt): Lease | Promise<Lease> }
  readonly upstream: {
    forward(outbound: Outbound, reply: Reply, reissue: () => Promise<Outbound | null>): Promise<Outcome>
  }
  readonly refusals: { write(inbound: Inbound, refusal: GatewayError, endpoint: Endpoint | undefined): void }
  readonly nowMs: () => number
}

export async function serveRequest(inbound: Inbound, house: RequestRooms): Promise<void> {
  const event = house.audit.openCall(inbound) // first: a refusal is an event too
  try {
    const grant = event.authenticated(await house.grants.authenticate(inbound)) // 1 who, for whom, for which task
    const endpoint = event.located(house.catalogue.locate(inbound)) // 2 where to, as which operation
    const decision = event.decided(house.policy.evaluate(ask(inbound, grant, endpoint, house))) // 3 may it
    const permit = requirePermit(grant, endpoint, decision) // 4 or a refusal
    await house.grants.debit(permit) // 5 budgets: spent before the call, never after
    const receipt = await event.commit() // 6 durable, or stop
    using lease = event.leased(await house.leases.acquire(permit, receipt)) // 7 credential, unseen
    const plain = cleanse(inbound, endpoint, grant) // 8 strip every credential slot, then attach
    const outbound = await lease.attach(plain)
    event.closed(await house.upstream.forward(outbound, inbound.reply, () => lease.reissue(plain))) // 9 guarded dial, stream, scrub
  } catch (cause) {
    house.refusals.write(inbound, await event.refused(asGatewayError(cause)), event.endpoint) // 10 one writer of refusals
  }
}

function ask(inbound: Inbound, grant: Grant, endpoint: Endpoint, house: RequestRooms): Ask {
  return { grant, endpoint, method: inbound.method, sourceAddress: inbound.client.address, nowMs: house.nowMs() }
}

/**
 * A CONNECT: only who is calling is settled here, on the proxy connection, where a 407 is understood. Every request inside
 * the tunnel goes through `serveRequest`, so nothing is decided once per tunnel.
 * @returns whether the tunnel may open; if not, the refusal has been written and the connection stays usable.
 */
export async function admitTunnel(inbound: Inbound, house: RequestRooms): Promise<boolean> {
  try {
    await house.grants.authenticate(inbound)
    return true
  } catch (cause) {
    const event = house.audit.openCall(inbound)
    house.refusals.write(inbound, await event.refused(asGatewayError(cause)), undefined)
    return false
  }
}
