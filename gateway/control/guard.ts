/** Who may instruct the control door at all: never a web page, and over TCP only whoever calls it by a name of its own. */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { InstructionRooms } from '../instruction.ts'
import { GatewayError } from '../protocol/problem.ts'
import { valuesOf } from '../protocol/raw-headers.ts'
import { parseAuthority } from '../protocol/target.ts'
import { isOwnName } from './address.ts'
import { ACCESS_FORMS } from './approve/access-pages.ts'
import { APPROVAL_FORMS } from './approve/approval-pages.ts'
import { OWN_FORM } from './connect/pages.ts'

interface GuardedDoor {
  readonly rooms: Pick<InstructionRooms, 'audit'>
  /** Address of the TCP listener. */
  readonly host: string
  readonly publicUrl: string
}

/** Routes that forms of our own pages are posted to. */
const OWN_FORMS: ReadonlySet<string | undefined> = new Set([OWN_FORM, ...APPROVAL_FORMS, ...ACCESS_FORMS])

/**
 * Browsers name the page that asks; programs on this machine do not. No page has business here (CSRF).
 * @throws {GatewayError} `policy_denied`
 */
export function refusePages(request: FastifyRequest, { rooms }: GuardedDoor): void {
  if (request.method === 'GET' || request.method === 'HEAD') return
  if (request.headers.origin === undefined && request.headers['sec-fetch-site'] === undefined) return
  if (OWN_FORMS.has(request.routeOptions.url)) return // it looks for itself
  rooms.audit.turnedAway?.('web_page')
  throw new GatewayError(
    'policy_denied',
    'Instructions are not taken from web pages. Use the keyless command, or a client that sends no Origin.',
  )
}

/** Routes that are added after this refuse requests by a name that is not of this door (DNS rebinding): `target_mismatch`. */
export function guardNames(app: FastifyInstance, door: GuardedDoor): void {
  const names = namesOf(door)
  app.addHook('onRequest', async (request) => {
    const [field = '', ...more] = valuesOf(request.raw.rawHeaders, 'host')
    // Two Host fields name two places (RFC 9112 §3.2); an unreadable one makes parseAuthority refuse.
    if (more.length === 0 && isOwnName(parseAuthority(field, 80).host, names, request.socket.localAddress)) return
    door.rooms.audit.turnedAway?.('host')
    throw new GatewayError(
      'target_mismatch',
      'The control door is not known by the name in the Host field. Use localhost or its address, or set public_url to the name that clients use.',
    )
  })
}

/** Names that settings give this door, lower case, without brackets. */
export function namesOf({ host, publicUrl }: Pick<GuardedDoor, 'host' | 'publicUrl'>): Set<string> {
  return new Set([host.toLowerCase(), new URL(publicUrl).hostname.replace(/^\[|\]$/g, '')])
}
