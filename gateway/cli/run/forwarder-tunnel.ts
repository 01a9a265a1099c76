/** Hands a connection over whole: CONNECT tunnels and WebSocket upgrades. What flows inside is never read. */
import { type IncomingMessage, request, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import {
  endToEnd,
  type Forwarding,
  MAX_HEADER_BYTES,
  UNREACHABLE,
  unreachable,
  withoutField,
} from './forwarder-wire.ts'

/** The gateway answers a CONNECT from memory; this bounds one that hangs. */
const CONNECT_TIMEOUT_MS = 15_000
const MAX_REFUSAL_BYTES = 64 * 1024

/** CONNECT: the same to the gateway, with the grant; after its 2xx, bytes both ways. */
export function openTunnel(asked: IncomingMessage, client: Socket, early: Buffer, options: Forwarding): void {
  const sent = request({
    ...options.gateway,
    agent: false,
    method: 'CONNECT',
    path: asked.url,
    headers: connectHeaders(asked, options.grant.authorization),
    maxHeaderSize: MAX_HEADER_BYTES,
    timeout: CONNECT_TIMEOUT_MS,
  })
  const leave = () => sent.destroy()
  client.once('close', leave)
  client.on('error', leave)
  sent.once('timeout', () => sent.destroy(new Error('no answer to CONNECT')))
  const told = (body: string) => options.onRefused?.(asked.url ?? '', body)
  sent.once('error', () => {
    const { body } = unreachable(options.gateway)
    if (!client.destroyed) told(body)
    refuse(client, 502, `keyless gateway at ${options.gateway.host}:${options.gateway.port} does not answer`, body)
  })
  sent.once('connect', (received, gateway: Socket, head) => {
    gateway.setTimeout(0)
    const status = received.statusCode ?? 502
    if (status < 200 || status > 299) return passRefusal(received, gateway, head, { client, told })
    client.off('close', leave)
    client.off('error', leave)
    client.write('HTTP/1.1 200 Connection Established\r\n\r\n')
    if (head.length > 0) client.write(head)
    if (early.length > 0) gateway.write(early)
    options.grant.carry(client)
    splice(client, gateway)
  })
  sent.end()
}

function connectHeaders(asked: IncomingMessage, authorization: string): string[] {
  const headers = ['Host', asked.url ?? '']
  const userAgent = asked.headers['user-agent']
  if (userAgent !== undefined) headers.push('User-Agent', userAgent)
  headers.push('Proxy-Authorization', authorization)
  return headers
}

interface Refused {
  readonly client: Socket
  readonly told: (body: string) => void
}

/**
 * Most clients show of a refused CONNECT at best its reason phrase, so that is where the gateway's words go. A 407 becomes
 * 403: the client's credentials are right, the grant behind them is not.
 */
function passRefusal(received: IncomingMessage, gateway: Socket, head: Buffer, { client, told }: Refused): void {
  const chunks = [head]
  const expected = Math.min(Number(received.headers['content-length'] ?? 0), MAX_REFUSAL_BYTES)
  const status = received.statusCode === 407 ? 403 : (received.statusCode ?? 502)
  const finish = () => {
    gateway.destroy()
    const body = Buffer.concat(chunks).subarray(0, expected).toString('utf8')
    told(body)
    refuse(
      client,
      status,
      received.statusMessage || (STATUS_CODES[status] ?? ''),
      body,
      endToEnd(received.rawHeaders, received.headers.connection),
    )
  }
  let size = head.length
  if (size >= expected) {
    finish()
    return
  }
  gateway.on('data', (chunk: Buffer) => {
    chunks.push(chunk)
    size += chunk.length
    if (size >= expected) gateway.destroy()
  })
  gateway.on('error', () => undefined)
  gateway.once('close', finish)
}

function refuse(client: Socket, status: number, reason: string, body: string, fields?: readonly string[]): void {
  if (!client.writable) {
    client.destroy()
    return
  }
  const own = fields ?? ['Content-Type', 'application/problem+json', 'Keyless-Error', UNREACHABLE]
  client.end(
    `${head(status, reason, withoutField(own, 'content-length'))}Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
}

function head(status: number, reason: string, fields: readonly string[]): string {
  let text = `HTTP/1.1 ${status} ${reason}\r\n`
  for (let index = 0; index + 1 < fields.length; index += 2) text += `${fields[index]}: ${fields[index + 1]}\r\n`
  return text
}

/** WebSocket: the handshake goes on with the grant; what the gateway answers goes back, and after its 101 bytes both ways. */
export function passUpgrade(asked: IncomingMessage, client: Socket, early: Buffer, options: Forwarding): void {
  const fields = endToEnd(asked.rawHeaders, asked.headers.connection)
  const sent = request({
    ...options.gateway,
    agent: false,
    method: asked.method,
    path: asked.url,
    headers: [
      ...fields,
      'Connection',
      'Upgrade',
      'Upgrade',
      'websocket',
      'Proxy-Authorization',
      options.grant.authorization,
    ],
    maxHeaderSize: MAX_HEADER_BYTES,
  })
  const leave = () => sent.destroy()
  client.once('close', leave)
  client.on('error', leave)
  const fail = () => refuse(client, 502, 'Bad Gateway', unreachable(options.gateway).body)
  sent.once('error', fail)
  sent.once('response', (received) => {
    sent.off('error', fail).on('error', () => client.destroy()) // an answer that has begun is cut, never completed
    const answered = endToEnd(received.rawHeaders, received.headers.connection)
    client.write(
      `${head(received.statusCode ?? 502, received.statusMessage ?? '', answered)}Connection: close\r\n\r\n`,
      'latin1',
    )
    received.once('error', () => client.destroy())
    received.pipe(client)
  })
  sent.once('upgrade', (received, gateway: Socket, first) => {
    client.off('close', leave)
    client.off('error', leave)
    client.write(`${head(101, received.statusMessage ?? 'Switching Protocols', received.rawHeaders)}\r\n`, 'latin1')
    if (first.length > 0) client.write(first)
    if (early.length > 0) gateway.write(early)
    splice(client, gateway)
  })
  sent.end()
}

/** Bytes both ways with back-pressure and half-close; a connection that breaks is broken on the other side too. */
export function splice(a: Socket, b: Socket): void {
  a.setNoDelay(true)
  b.setNoDelay(true)
  join(a, b)
  join(b, a)
}

function join(from: Socket, to: Socket): void {
  from.pipe(to)
  from.on('error', () => {
    if (to.remoteFamily === undefined)
      to.destroy() // a unix socket knows no reset
    else to.resetAndDestroy()
  })
  from.once('close', () => {
    // An orderly close has handed its end on through pipe(); what is still on its way may finish.
    if (from.readableEnded) to.destroySoon()
    else to.destroy()
  })
}
