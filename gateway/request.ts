/**
 * FLOW 1: one proxied request. Decide, record, lease, attach: no credential exists before its decision is durable.
 * Forward, intercepted and reverse requests differ only in how their `Inbound` was made.
 */
import { requirePermit } from './policy/decision.ts'
import type { Inbound } from './protocol/message.ts'
import { asGatewayError } from './protocol/problem.ts'
import { decide, located, meterOf, paid, said } from './request-deciding.ts'
import type { RequestRooms } from './request-rooms.ts'
import { cleanse } from './upstream/headers.ts'

export async function serveRequest(inbound: Inbound, house: RequestRooms): Promise<void> {
  const event = house.audit.openCall(house.catalogue.veiled(inbound)) // first: a refusal is an event too
  try {
    const grant = event.authenticated(await house.grants.authenticate(inbound)) // 1 who, for whom, for which task
    using _seat = await house.grants.seat(grant, inbound.reply) // 2 when it is its turn
    const { told, endpoint } = await located(inbound, event, house) // 3 where to, as which operation
    const heard = await said(told, grant, endpoint, house) // 4 saying what, if that counts
    const decided = await decide({ inbound: heard, grant, endpoint }, event, house) // 5 may it
    const { inbound: whole, decision } = decided
    const approved = event.approved(await house.approvals.approved(decided)) // 6 does somebody agree, and nobody has used that
    house.revocations.require(decided) // 7 nothing that it needs was ended or blocked meanwhile
    const granted = requirePermit(grant, endpoint, decision, approved) // 8 or a refusal
    const inspection = event.inspected(house.upstream.inspect(whole, endpoint, decision.obligations, grant)) // 9 no credential but ours
    const { permit, allowance } = await paid(granted, { decided, approved }, event, house) // 10 budgets: a call before it is made, …
    using meter = meterOf(permit, allowance, house) // … bytes as they pass
    const receipt = await event.commit() // 11 durable, or stop
    using lease = event.leased(await house.leases.acquire(permit, receipt, whole)) // 12 credential, unseen
    const plain = cleanse(whole, decided, meter, inspection) // 13 strip every credential slot, …
    const outbound = await lease.attach(plain) // … then attach
    if (house.policy.digest !== decision.policySet) await house.policy.again(decided) // 14 other policies may be in force by now, …
    house.revocations.still(decided) // … and all of this took time, in which nothing was ended or blocked
    const reissue = lease.reissue.bind(lease, plain)
    const burn = () => event.burnt(lease.burn(plain)) // nobody uses it any more, and the log says so
    const outcome = await house.upstream.forward(outbound, inbound.reply, reissue, burn) // 15 guarded dial, stream, scrub
    event.closed(outcome) // 16 what became of it
  } catch (cause) {
    await house.refusals.write(inbound, await event.refused(asGatewayError(cause)), event.endpoint, event.grant) // 17 one writer of refusals
  }
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
    const event = house.audit.openCall(house.catalogue.veiled(inbound))
    await house.refusals.write(inbound, await event.refused(asGatewayError(cause)))
    return false
  }
}
