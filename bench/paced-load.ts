/**
 * Load at a fixed rate over kept-alive connections, which wrk cannot do. Requests fall due
 * once a millisecond, and latency counts from then, so a proxy that stalls is charged for everything that had to wait. A process of its own:
 *
 *   node bench/paced-load.ts '{"port":…,"target":…,"headers":{…},"perS":…,"connections":…,"seconds":…}'
 *
 * Prints one JSON line with what it saw.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import type { Seen } from './wrk.ts'

export interface PacedLoad {
  readonly port: number
  /** Request target: origin form, or absolute form towards a forward proxy. */
  readonly target: string
  readonly headers: Readonly<Record<string, string>>
  readonly perS: number
  readonly connections: number
  readonly seconds: number
}

async function measure({ port, target, headers, perS, connections, seconds }: PacedLoad): Promise<Seen> {
  const fields = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
  const request = `GET ${target} HTTP/1.1\r\n${fields.join('')}\r\n`
  const idle: Socket[] = []
  const latencies: number[] = []
  let errors = 0
  const due: number[] = []
  const sentFor = new Map<Socket, number>()
  const send = () => {
    while (due.length > 0 && idle.length > 0) {
      const socket = idle.pop() as Socket
      sentFor.set(socket, due.shift() as number)
      socket.write(request)
    }
  }
  const sockets = await Promise.all(Array.from({ length: connections }, () => open(port)))
  for (const socket of sockets) {
    idle.push(socket)
    onAnswers(socket, (isGood) => {
      latencies.push((performance.now() - (sentFor.get(socket) as number)) * 1000)
      if (!isGood) errors += 1
      idle.push(socket)
      send()
    })
  }
  const started = performance.now()
  const total = perS * seconds
  for (let issued = 0; issued < total; ) {
    // Once a millisecond: waiting in a loop would take the processor from the far side, which shares it.
    await new Promise((resolve) => setTimeout(resolve, 1))
    const now = performance.now()
    for (; issued < Math.min(total, ((now - started) * perS) / 1000); issued++) due.push(now)
    send()
  }
  const patience = performance.now() + 5_000
  while (latencies.length < total && performance.now() < patience)
    await new Promise((resolve) => setTimeout(resolve, 5))
  errors += total - latencies.length
  const sorted = latencies.sort((a, b) => a - b)
  const at = (share: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0)
  for (const socket of sockets) socket.destroy()
  return {
    requests: latencies.length,
    seconds: (performance.now() - started) / 1000,
    p50: at(0.5),
    p99: at(0.99),
    errors,
  }
}

async function open(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1').setNoDelay(true)
  await once(socket, 'connect')
  return socket
}

/** One answer at a time, each with a Content-Length. */
function onAnswers(socket: Socket, answered: (isGood: boolean) => void): void {
  let pending = ''
  socket.on('error', () => undefined)
  socket.on('data', (bytes: Buffer) => {
    pending += bytes.toString('latin1')
    const end = pending.indexOf('\r\n\r\n')
    if (end === -1) return
    const length = Number(/\r\ncontent-length: *(\d+)/i.exec(pending)?.[1])
    if (pending.length < end + 4 + length) return
    const isGood = pending.startsWith('HTTP/1.1 200')
    pending = ''
    answered(isGood)
  })
}

if (import.meta.main)
  process.stdout.write(`${JSON.stringify(await measure(JSON.parse(process.argv[2] ?? '') as PacedLoad))}\n`)
