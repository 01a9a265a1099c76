/**
 * SOCKS5 (RFC 1928) with user name and password (RFC 1929): another way to ask for a tunnel, let in as a CONNECT is. The password is
 * a handle. A refusal is one byte here, and its reason stands in the record; what is refused inside the tunnel is told there.
 */
import { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { uuidv7 } from '../protocol/id.ts'
import type { Inbound, Presented } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { formatAuthority, type HostPort, parseAuthority } from '../protocol/target.ts'
import { admitTunnel } from '../request.ts'
import { enterTunnel, SILENCE_MS, TLS_HANDSHAKE } from './connect.ts'
import { FirstBytes } from './first-bytes.ts'
import type { Interceptor } from './intercept.ts'
import type { Door, Line } from './line.ts'
import { draining, endWith, turnAway } from './refusal.ts'
import { serverNameIn } from './server-name.ts'

const NEGOTIATION_MS = 20_000
const VERSION = 5
const USERNAME_PASSWORD = 2
const NO_ACCEPTABLE_METHODS = 0xff
const CONNECT = 1
const IPV4 = 1
const DOMAIN = 3
const IPV6 = 4
/** RFC 1929 §2: its length is one byte. A handle has 46 characters. */
const MAX_PASSWORD = 255
const RECORD_HEADER = 5

/** RFC 1928 §6. */
const REPLY = { succeeded: 0, failure: 1, commandNotSupported: 7, addressTypeNotSupported: 8 } as const

/** Serve a connection whose first byte, still unread, is 5. Never rejects. */
export async function openSocks(door: Door, interceptor: Interceptor, socket: Socket): Promise<void> {
  const bytes = new FirstBytes(socket, NEGOTIATION_MS)
  try {
    const credentials = await readCredentials(bytes, socket)
    const line = door.lines.get(socket)
    if (line === undefined) return
    const caller = callerOn(door, socket, line, credentials)
    if (!(await isLetIn(door, caller, credentials))) {
      endWith(socket, Buffer.from(credentials === undefined ? [VERSION, NO_ACCEPTABLE_METHODS] : [1, 1]))
      return
    }
    socket.write(Buffer.from([1, 0]))
    const asked = await readRequest(bytes)
    if ('reply' in asked) {
      await turnAway(caller, asked.why, door.rooms)
      endWith(socket, replyOf(asked.reply))
      return
    }
    socket.write(replyOf(REPLY.succeeded))
    bytes.release()
    const { presented, proof, client } = caller
    const host = asked.isName ? asked.place.host : await hostOf(socket, asked.place)
    enterTunnel(door, interceptor, socket, { ...asked.place, host, presented, proof, ...client })
  } catch {
    if (!socket.destroyed) door.rooms.audit.turnedAway?.('protocol')
    socket.destroy() // it left, came too late, or sends no SOCKS5
  } finally {
    bytes.release()
  }
}

interface Credentials {
  readonly presented: Presented | null
  readonly isCut: boolean
}

/** @returns undefined when the client offers no user name and password. */
async function readCredentials(bytes: FirstBytes, socket: Socket): Promise<Credentials | undefined> {
  const [, count = 0] = await bytes.take(2)
  const methods = await bytes.take(count)
  if (!methods.includes(USERNAME_PASSWORD)) return undefined
  socket.write(Buffer.from([VERSION, USERNAME_PASSWORD]))
  const [version] = await bytes.take(1)
  if (version !== 1) throw new Error('not RFC 1929')
  const user = await readCounted(bytes)
  const password = await readCounted(bytes)
  const token = password === '' ? user : password
  const presented: Presented | null =
    token === '' ? null : { token, scheme: 'basic', user: password === '' ? '' : user }
  return { presented, isCut: token.length >= MAX_PASSWORD }
}

async function readCounted(bytes: FirstBytes): Promise<string> {
  const [count = 0] = await bytes.take(1)
  return (await bytes.take(count)).toString('utf8')
}

/** Who asks for a tunnel. To where is said only after this is settled (RFC 1928 §3). */
function callerOn(door: Door, socket: Socket, { address, proof }: Line, credentials: Credentials | undefined): Inbound {
  return {
    id: uuidv7(door.nowMs()),
    tenant: door.tenant,
    mode: 'forward',
    method: 'CONNECT',
    scheme: 'https',
    host: '',
    port: 0,
    rawPath: '',
    rawHeaders: [],
    hostHeader: undefined,
    presented: credentials?.presented ?? null,
    proof,
    client: { address, userAgent: undefined },
    body: null,
    reply: new ServerResponse(new IncomingMessage(socket)), // never sent: the text of a refusal has no place on this wire
  }
}

async function isLetIn(door: Door, caller: Inbound, credentials: Credentials | undefined): Promise<boolean> {
  if (!door.isDraining && credentials?.isCut !== true) return admitTunnel(caller, door.rooms)
  await turnAway(caller, door.isDraining ? draining() : tooLong(), door.rooms)
  return false
}

type Asked =
  | { readonly place: HostPort; readonly isName: boolean }
  | { readonly reply: number; readonly why: GatewayError }

/** RFC 1928 §4. */
async function readRequest(bytes: FirstBytes): Promise<Asked> {
  const [version, command, , type] = await bytes.take(4)
  if (version !== VERSION) throw new Error('not RFC 1928')
  const host = await readHost(bytes, type)
  if (host === undefined)
    return { reply: REPLY.addressTypeNotSupported, why: malformed(`its address is of type ${type}`) }
  const port = (await bytes.take(2)).readUInt16BE()
  if (command !== CONNECT) return { reply: REPLY.commandNotSupported, why: unsupported(command) }
  try {
    return { place: parseAuthority(formatAuthority({ host, port }), 0), isName: type === DOMAIN }
  } catch (cause) {
    if (cause instanceof GatewayError) return { reply: REPLY.failure, why: cause }
    throw cause
  }
}

async function readHost(bytes: FirstBytes, type: number | undefined): Promise<string | undefined> {
  if (type === DOMAIN) return readCounted(bytes)
  if (type === IPV4) return (await bytes.take(4)).join('.')
  if (type !== IPV6) return undefined
  const address = await bytes.take(16)
  return Array.from({ length: 8 }, (_, i) => address.readUInt16BE(2 * i).toString(16)).join(':')
}

/**
 * A client that resolved the name by itself (`socks5://`) asks for an address, and means the name in its TLS handshake. That
 * name is taken: the address then counts for nothing. It is the name that is decided on, resolved here, dialled, and compared
 * with every request inside, just as if the client had asked for it.
 */
async function hostOf(socket: Socket, { host }: HostPort): Promise<string> {
  const bytes = new FirstBytes(socket, SILENCE_MS)
  try {
    const [first] = await bytes.peek(1)
    if (first !== TLS_HANDSHAKE) return host
    const header = await bytes.peek(RECORD_HEADER)
    const name = serverNameIn(await bytes.peek(RECORD_HEADER + header.readUInt16BE(3)))
    return name === undefined ? host : parseAuthority(name, 443).host
  } catch (cause) {
    if (cause instanceof GatewayError) return host // no name of a host
    throw cause
  } finally {
    bytes.release()
  }
}

function replyOf(reply: number): Buffer {
  return Buffer.from([VERSION, reply, 0, IPV4, 0, 0, 0, 0, 0, 0])
}

function tooLong(): GatewayError {
  return new GatewayError(
    'grant_invalid',
    `SOCKS cuts a password at ${MAX_PASSWORD} bytes, so a signed grant does not fit. Use the handle of the grant, or an http:// proxy URL.`,
  )
}

function unsupported(command: number | undefined): GatewayError {
  return new GatewayError(
    'method_refused',
    `The SOCKS command ${command} is not served (2 is BIND, 3 is UDP ASSOCIATE). Only 1, CONNECT, is.`,
  )
}

function malformed(why: string): GatewayError {
  return new GatewayError('request_malformed', `The SOCKS request cannot be used: ${why}. Send a name, IPv4 or IPv6.`)
}
