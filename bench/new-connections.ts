/**
 * New TLS connections one after the other on several lines, straight or through CONNECT: connect, handshake in full, one
 * request, close. A process of its own: `node bench/new-connections.ts JSON`, as `tunnel-load.ts`. Prints what it saw.
 */
import { readFileSync } from 'node:fs'
import { openSecure, type TunnelLoad } from './tunnel-load.ts'
import type { Seen } from './wrk.ts'

async function measure(load: TunnelLoad): Promise<Seen> {
  const ca = readFileSync(load.ca, 'utf8')
  const request = `GET ${load.path} HTTP/1.1\r\nHost: ${load.tunnel?.to ?? load.servername}\r\nConnection: close\r\n\r\n`
  const took: number[] = []
  let errors = 0
  const started = performance.now()
  const end = started + load.seconds * 1000
  const line = async () => {
    while (performance.now() < end) {
      const from = performance.now()
      const isGood = await once(load, ca, request).catch(() => false)
      took.push((performance.now() - from) * 1000)
      if (!isGood) errors += 1
    }
  }
  await Promise.all(Array.from({ length: load.connections }, line))
  const sorted = took.sort((a, b) => a - b)
  const at = (share: number) => Math.round(sorted[Math.floor(sorted.length * share)] ?? 0)
  return { requests: took.length, seconds: (performance.now() - started) / 1000, p50: at(0.5), p99: at(0.99), errors }
}

async function once(load: TunnelLoad, ca: string, request: string): Promise<boolean> {
  const socket = await openSecure(load, ca)
  return new Promise((resolve) => {
    let text = ''
    socket.on('data', (bytes: Buffer) => {
      text += bytes.toString('latin1')
    })
    socket.once('close', () => resolve(text.startsWith('HTTP/1.1 200')))
    socket.once('error', () => resolve(false))
    socket.write(request)
  })
}

if (import.meta.main)
  process.stdout.write(`${JSON.stringify(await measure(JSON.parse(process.argv[2] ?? '') as TunnelLoad))}\n`)
