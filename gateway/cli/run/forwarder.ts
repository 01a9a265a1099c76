/**
 * The loopback forward proxy that `keyless run` opens for its child. It knows one secret of this run and one gateway: a client
 * that shows the secret is passed on with the grant added, so that no grant is in the child's environment and clients need
 * no more than a proxy URL. It decides nothing, reads nothing inside a tunnel, and connects to nothing but the gateway.
 */
import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { Agent, createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { HeldGrant } from './forwarder-grant.ts'
import { isOwnPeer } from './forwarder-peer.ts'
import { relayRequest } from './forwarder-relay.ts'
import { openTunnel, passUpgrade } from './forwarder-tunnel.ts'
import { type Forwarding, MAX_HEADER_BYTES } from './forwarder-wire.ts'

export type { GatewayAddress } from './forwarder-wire.ts'

export interface ForwarderOptions extends Omit<Forwarding, 'grant'> {
  /** Proxy-Authorization towards the gateway, with its scheme. */
  readonly authorization: string
  /**
   * For a command that is isolated: listen on this unix socket and nowhere else, and ask nobody for a password, since the command alone
   * is led there. `port` is where it finds the socket on a 127.0.0.1 of its own.
   */
  readonly inside?: { readonly socketPath: string; readonly port: number }
}

export interface Forwarder {
  /** On the command's 127.0.0.1. */
  readonly port: number
  /** 32 random bytes, hex: the password of this run, of no use anywhere else. */
  readonly secret: string
  /** `http://agent:SECRET@127.0.0.1:PORT`, for the proxy variables. Only characters that no client re-encodes. */
  readonly url: string
  /** From now on this grant. @param graceMs how long tunnels that were opened under the one so far may live on. */
  present(authorization: string, graceMs: number): void
  /**
   * A second port for clients that cannot send credentials to a proxy (Java, Chromium). It asks for no password.
   * @param isForAll false: connections of other users' processes are cut, as far as `KNOWS_PEERS`. @returns the port on 127.0.0.1.
   */
  openUnlocked(isForAll: boolean): Promise<number>
  /** Cut everything that is open, and stop. */
  close(): Promise<void>
}

const NOT_PROXY = 'This is the proxy of one keyless run: send it absolute-form requests or CONNECT.'
const NO_SECRET = 'This proxy serves one keyless run. Use the proxy URL of its environment, with user and password.'
const REALM = 'Basic realm="keyless run"'
const RAW_CHALLENGE = `HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: ${REALM}\r\nContent-Type: text/plain\r\nContent-Length: ${NO_SECRET.length}\r\n\r\n${NO_SECRET}`

/** Opens on 127.0.0.1, on a port that the system chooses, or `inside`. @throws the listen error, if even that fails. */
export async function openForwarder({ authorization, inside, ...rest }: ForwarderOptions): Promise<Forwarder> {
  const secret = randomBytes(32).toString('hex')
  const agent = new Agent({ keepAlive: true, maxFreeSockets: 64, scheduling: 'lifo' })
  const grant = new HeldGrant(authorization)
  const options = { ...rest, grant }
  const unlocked = { options, agent, isAllowed: () => true }
  const first = inside ? openDoor(unlocked, inside.socketPath) : openDoor({ ...unlocked, isAllowed: checker(secret) })
  const doors = [await first]
  const port = inside?.port ?? doors[0]?.port ?? 0
  return {
    port,
    secret,
    url: `http://agent:${secret}@127.0.0.1:${port}`,
    present: (next, graceMs) => grant.replace(next, graceMs),
    async openUnlocked(isForAll) {
      if (inside) return inside.port
      const door = await openDoor(unlocked, undefined, isForAll ? undefined : isOwnPeer)
      doors.push(door)
      return door.port
    },
    async close() {
      await Promise.all(doors.map((door) => door.close()))
      agent.destroy()
    },
  }
}

interface Door {
  readonly port: number
  close(): Promise<void>
}

/** @param path of a unix socket. Default: a free port of 127.0.0.1. */
async function openDoor(serving: Serving, path?: string, isWelcome?: (peer: Socket) => boolean): Promise<Door> {
  const server = createServer({
    maxHeaderSize: MAX_HEADER_BYTES,
    highWaterMark: 65_536,
    requestTimeout: 0,
    keepAliveTimeout: 60_000,
    noDelay: true,
    // Anything but WebSocket is an offer (curl's `Upgrade: h2c`) that a proxy ignores; taken as an upgrade it would hang.
    shouldUpgradeCallback: (asked) => asked.headers.upgrade?.toLowerCase() === 'websocket',
  })
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    if (sockets.has(socket)) return
    if (isWelcome?.(socket) === false) return void socket.destroy()
    // Tunnels leave the server's own list of connections; closing must cut them too.
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  serve(server, serving)
  const at = path === undefined ? { port: 0, host: '127.0.0.1' } : { path }
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(at, resolve))
  return {
    port: path === undefined ? (server.address() as AddressInfo).port : 0,
    async close() {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

interface Serving {
  readonly options: Forwarding
  readonly agent: Agent
  readonly isAllowed: (asked: IncomingMessage) => boolean
}

function serve(server: Server, { options, agent, isAllowed }: Serving): void {
  const relay = (asked: IncomingMessage, answer: ServerResponse) => {
    if (!isAllowed(asked)) return challenge(asked, answer)
    if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(asked.url ?? '')) return refuse(answer)
    relayRequest({ asked, answer, agent, options, retries: 1 })
  }
  server.on('request', relay)
  server.on('checkContinue', relay)
  const handOver = (pass: typeof openTunnel) => (asked: IncomingMessage, socket: Socket, head: Buffer) => {
    if (isAllowed(asked)) return pass(asked, socket, head, options)
    // Git, Java and Chromium send their credentials only after this, on the same connection: back to the parser with it.
    socket.write(RAW_CHALLENGE)
    if (head.length > 0) socket.unshift(head)
    server.emit('connection', socket)
  }
  server.on('connect', handOver(openTunnel))
  server.on('upgrade', handOver(passUpgrade))
  server.on('clientError', (_cause, socket) => {
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n')
    else socket.destroy()
  })
}

/** Compares digests, so that neither length nor content of the secret shows in the time it takes. */
function checker(secret: string): (asked: IncomingMessage) => boolean {
  const expected = hash('sha256', Buffer.from(`agent:${secret}`).toString('base64'), 'buffer')
  return (asked) => {
    const match = /^basic +(\S+) *$/i.exec(asked.headers['proxy-authorization'] ?? '')
    return match?.[1] !== undefined && timingSafeEqual(hash('sha256', match[1], 'buffer'), expected)
  }
}

function challenge(asked: IncomingMessage, answer: ServerResponse): void {
  asked.resume() // the connection stays usable only once the body is out of the way
  const fields = { 'proxy-authenticate': REALM, 'content-type': 'text/plain', 'content-length': NO_SECRET.length }
  answer.writeHead(407, fields).end(NO_SECRET)
}

function refuse(answer: ServerResponse): void {
  const fields = { 'content-type': 'text/plain', 'content-length': NOT_PROXY.length, connection: 'close' }
  answer.writeHead(400, fields).end(NOT_PROXY)
}
