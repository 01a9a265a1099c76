/**
 * Load over TLS, straight or through CONNECT tunnels, which wrk cannot do. A process of its own:
 *
 *   node bench/tunnel-load.ts '{"port":…,"servername":…,"ca":…,"path":…,"connections":…,"seconds":…}'
 *
 * Each connection has one request under way. Prints one JSON line with what it saw.
 */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { Seen } from './wrk.ts'

export interface TunnelLoad {
  readonly port: number
  /** Name in the certificate. */
  readonly servername: string
  readonly ca: string
  readonly path: string
  readonly connections: number
  readonly seconds: number
  /** CONNECT first: where to, and the value of Proxy-Authorization. */
  readonly tunnel?: { readonly to: string; readonly authorization: string }
}

/** One microsecond each; what takes longer is counted in the last one. */
const BUCKETS = 1_000_000

async function measure(load: TunnelLoad): Promise<Seen> {
  const request = Buffer.from(`GET ${load.path} HTTP/1.1\r\nHost: ${load.tunnel?.to ?? load.servername}\r\n\r\n`)
  const ca = readFileSync(load.ca, 'utf8')
  const sockets = await Promise.all(Array.from({ length: load.connections }, () => openSecure(load, ca)))
  const histogram = new Uint32Array(BUCKETS)
  const seen = { requests: 0, errors: 0 }
  const started = performance.now()
  const end = started + load.seconds * 1000
  await Promise.all(sockets.map((socket) => drive({ socket, request, end, histogram, seen })))
  const seconds = (performance.now() - started) / 1000
  for (const socket of sockets) socket.destroy()
  return {
    ...seen,
    seconds,
    p50: percentile(histogram, seen.requests, 0.5),
    p99: percentile(histogram, seen.requests, 0.99),
  }
}

/** A connection after its handshake. @param ca PEM */
export async function openSecure({ port, servername, tunnel }: TunnelLoad, ca: string): Promise<Socket> {
  const raw = connectTcp(port, '127.0.0.1').setNoDelay(true)
  if (tunnel) {
    raw.write(
      `CONNECT ${tunnel.to} HTTP/1.1\r\nHost: ${tunnel.to}\r\nProxy-Authorization: ${tunnel.authorization}\r\n\r\n`,
    )
    const [answer] = (await once(raw, 'data')) as [Buffer]
    if (!/^HTTP\/1\.1 200 /.test(answer.toString('latin1'))) throw new Error(answer.toString('latin1'))
  }
  const secure = connectTls({ socket: raw, servername, ca, ALPNProtocols: ['http/1.1'] })
  await once(secure, 'secureConnect')
  return secure
}

interface Drive {
  readonly socket: Socket
  readonly request: Buffer
  /** On the clock of `performance.now`. */
  readonly end: number
  readonly histogram: Uint32Array
  readonly seen: { requests: number; errors: number }
}

function drive({ socket, request, end, histogram, seen }: Drive): Promise<void> {
  return new Promise((resolve) => {
    let sentAt = 0
    let pending = ''
    const next = () => {
      sentAt = performance.now()
      if (sentAt >= end) return resolve()
      socket.write(request)
    }
    const failed = () => {
      seen.errors += 1
      resolve()
    }
    socket.once('error', failed).once('close', failed)
    socket.on('data', (bytes: Buffer) => {
      pending += bytes.toString('latin1')
      if (!isWhole(pending)) return
      const passed = Math.round((performance.now() - sentAt) * 1000)
      const bucket = Math.min(passed, BUCKETS - 1)
      histogram[bucket] = (histogram[bucket] ?? 0) + 1
      seen.requests += 1
      if (!pending.startsWith('HTTP/1.1 200')) seen.errors += 1
      pending = ''
      next()
    })
    next()
  })
}

function isWhole(text: string): boolean {
  const end = text.indexOf('\r\n\r\n')
  if (end === -1) return false
  const length = /\r\ncontent-length: *(\d+)/i.exec(text)?.[1]
  if (length === undefined) throw new Error('the measured answers have a Content-Length')
  return text.length >= end + 4 + Number(length)
}

function percentile(histogram: Uint32Array, total: number, share: number): number {
  let left = Math.ceil(total * share)
  for (let bucket = 0; bucket < histogram.length; bucket++) {
    left -= histogram[bucket] ?? 0
    if (left <= 0) return bucket
  }
  return histogram.length
}

if (import.meta.main)
  process.stdout.write(`${JSON.stringify(await measure(JSON.parse(process.argv[2] ?? '') as TunnelLoad))}\n`)
