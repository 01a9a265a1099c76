/**
 * Requests to the gateway itself, at the one name that leads nowhere else: authenticated and refused like any other, answered here and
 * never forwarded. Whatever else comes goes into the flow.
 */
import { collect } from '../protocol/collect.ts'
import { DESK_HOST, type Desk } from '../protocol/desk.ts'
import type { Inbound } from '../protocol/message.ts'
import { asGatewayError, GatewayError } from '../protocol/problem.ts'
import { serveRequest } from '../request.ts'
import { fieldValue } from './fields.ts'
import type { Door } from './line.ts'

const MAX_BYTES = 64 * 1024
const WITHIN_MS = 10_000
/** What decides how a body is read, and what tells a web page from a program. */
const FIELDS = ['content-type', 'origin', 'sec-fetch-site'] as const

/** Every request that could be read, whichever way it came. Rejects only when there is nobody left to tell. */
export function serveInbound({ rooms, desk }: Pick<Door, 'rooms' | 'desk'>, inbound: Inbound): Promise<void> {
  const isAtDesk = inbound.host === DESK_HOST && inbound.mode !== 'reverse'
  return isAtDesk && desk !== undefined ? answer(inbound, desk, rooms) : serveRequest(inbound, rooms)
}

async function answer(inbound: Inbound, desk: Desk, { audit, grants, refusals }: Door['rooms']): Promise<void> {
  const event = audit.openCall(inbound)
  try {
    const grant = event.authenticated(await grants.authenticate(inbound))
    using _seat = await grants.seat(grant, inbound.reply)
    const body = await bodyOf(inbound)
    if (body.length > 0) await grants.authenticate(inbound) // the agent took its time to send it
    const { method, rawPath: path, rawHeaders } = inbound
    const fields = Object.fromEntries(FIELDS.flatMap((name) => fieldIn(rawHeaders, name)))
    const { status, headers, body: said } = await desk({ method, path, fields, body, grant })
    inbound.reply.writeHead(status, [...headers, 'Content-Length', String(said.length)])
    inbound.reply.end(said)
  } catch (cause) {
    await refusals.write(inbound, await event.refused(asGatewayError(cause)), undefined, event.grant)
  }
}

function fieldIn(rawHeaders: Inbound['rawHeaders'], name: string): [string, string][] {
  const value = fieldValue(rawHeaders, name)
  return value === undefined ? [] : [[name, value]]
}

async function bodyOf({ body, upgrade }: Inbound): Promise<Buffer> {
  if (upgrade !== undefined)
    throw new GatewayError('upgrade_refused', `${DESK_HOST} speaks plain HTTP. Send the request without \`Upgrade\`.`)
  if (body === null) return Buffer.alloc(0)
  return collect(body, {
    maxBytes: MAX_BYTES,
    withinMs: WITHIN_MS,
    refuse: (fault) =>
      fault === 'long'
        ? new GatewayError('content_too_large', `${DESK_HOST} takes bodies of at most 64 KiB. Send a shorter one.`)
        : new GatewayError('request_malformed', 'The body did not come whole, or not in time. Send it again.'),
  })
}
