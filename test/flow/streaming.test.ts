/** Bodies of any size pass with flat memory, events pass at once, and clients that leave hang nothing. */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { connect as netConnect } from 'node:net'
import { type TLSSocket, connect as tlsConnect } from 'node:tls'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { run } from '../rig/process.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

/** Twice what may stand around. `test/upstream/large.test.ts` takes a whole gigabyte each way. */
const SIZE = 1024 ** 3 / 4
/** Far below it, and far above the 40 MB that the collector lets stand around. */
const FLAT = 128 * 1024 ** 2

let upstream: TestUpstream
let gateway: TestGateway
let task: OpenedTask
let ca: Buffer

beforeAll(async () => {
  upstream = await startUpstream()
  gateway = await startGateway(await upstream.settings())
  task = await gateway.openTask('demo:*', 'move a lot')
  ca = await readFile(`${gateway.settings.keysDir}/ca.pem`)
})

afterAll(async () => {
  await gateway.stop()
  await upstream.stop()
})

const curl = (...args: string[]) =>
  run(
    'curl',
    [
      '-sS',
      '--cacert',
      `${gateway.settings.keysDir}/ca.pem`,
      '-x',
      `http://task:${task.handle}@127.0.0.1:${gateway.proxyPort}`,
      ...args,
    ],
    { timeoutMs: 120_000 },
  )

async function peakMemory(work: () => Promise<unknown>): Promise<number> {
  const before = process.memoryUsage.rss()
  let peak = before
  const timer = setInterval(() => {
    peak = Math.max(peak, process.memoryUsage.rss())
  }, 50)
  await work()
  clearInterval(timer)
  return peak - before
}

it('brings a quarter of a gigabyte down with flat memory', { timeout: 120_000 }, async () => {
  const grown = await peakMemory(async () => {
    const answer = await curl(
      '-o',
      '/dev/null',
      '-w',
      '%{size_download}',
      `${upstream.facts.api}/files/big?bytes=${SIZE}`,
    )
    expect(answer.stdout).toBe(String(SIZE))
  })
  expect(grown).toBeLessThan(FLAT)
})

it('takes a quarter of a gigabyte up with flat memory', { timeout: 120_000 }, async () => {
  const grown = await peakMemory(async () => {
    const answer = await run(
      'sh',
      [
        '-c',
        'head -c "$1" /dev/zero | curl -sS --cacert "$2" -x "$3" -T - "$4"',
        'sh',
        String(SIZE),
        `${gateway.settings.keysDir}/ca.pem`,
        `http://task:${task.handle}@127.0.0.1:${gateway.proxyPort}`,
        `${upstream.facts.api}/files/up`,
      ],
      { timeoutMs: 120_000 },
    )
    expect(answer.stdout).toContain(String(SIZE))
  })
  expect(grown).toBeLessThan(FLAT)
})

it('serves at full speed after 200 clients left in the middle of an answer', { timeout: 60_000 }, async () => {
  const leave = async () => {
    const socket = await tunnel()
    socket.write(`GET /files/big?bytes=${64 * 1024 ** 2} HTTP/1.1\r\nHost: ${new URL(upstream.facts.api).host}\r\n\r\n`)
    await once(socket, 'data')
    socket.destroy()
  }
  for (let round = 0; round < 10; round++) await Promise.all(Array.from({ length: 20 }, leave))
  const answers = await Promise.all(
    Array.from({ length: 20 }, () =>
      curl('-o', '/dev/null', '-w', '%{http_code}', '-m', '10', `${upstream.facts.api}/notes`),
    ),
  )
  expect(new Set(answers.map((answer) => answer.stdout))).toEqual(new Set(['200']))
})

async function tunnel(): Promise<TLSSocket> {
  const { host, hostname } = new URL(upstream.facts.api)
  const raw = netConnect(gateway.proxyPort, '127.0.0.1')
  raw.write(
    `CONNECT ${host} HTTP/1.1\r\nHost: ${host}\r\nProxy-Authorization: Basic ${Buffer.from(`task:${task.handle}`).toString('base64')}\r\n\r\n`,
  )
  await once(raw, 'data')
  const socket = tlsConnect({ socket: raw, servername: hostname, ca })
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  return socket
}
