/**
 * `npm run bench:revocation`: how long it takes from an order at one gateway until another one refuses the next request and cuts what is
 * open, with a real Redis between them; and the same when Redis carries no messages, so that only asking is left. About three
 * minutes. Writes bench/REVOCATION.md. Needs redis-server.
 */
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { Redis } from 'ioredis'
import type { IssuedView } from '../gateway/protocol/control.ts'
import type { TargetBody } from '../gateway/protocol/control-revocation.ts'
import { writeSite } from '../test/invariant/services.fixture.ts'
import { startGateway, type TestGateway } from '../test/rig/gateway.ts'
import { ROOT } from '../test/rig/process.ts'
import { startRedis } from '../test/rig/redis.ts'
import { startWebSockets } from '../test/rig/websocket.ts'
import { machine } from './report.ts'
import { load } from './timing.ts'

const SAMPLES = 60
/** Between two requests of the agent. */
const EVERY_MS = 10
const AGENT = 'spiffe://bench/agent'

const KINDS = {
  'a task': ({ task }: IssuedView): TargetBody => ({ task: task ?? '' }),
  'an agent': (): TargetBody => ({ agent: AGENT }),
  everything: (): TargetBody => ({ everything: true }),
} as const

interface Sample {
  /** From sending the order to its answer. */
  readonly ordered: number
  /** From sending the order until the last request that passed was sent. */
  readonly request: number
  /** From sending the order until the open stream is cut. */
  readonly stream: number
}

async function measure(
  [here, there]: readonly [TestGateway, TestGateway],
  target: (task: IssuedView) => TargetBody,
): Promise<Sample> {
  const task = (await here.control.openTask({ agent: AGENT, scope: 'chat:*', purpose: 'bench' })) as IssuedView
  const stream = connect(there.proxyPort, '127.0.0.1').on('error', () => {})
  stream.write(`GET /chat/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${task.handle}\r\n\r\n`)
  await once(stream, 'data')
  const cut = once(stream.resume(), 'close').then(() => performance.now())
  let passed = performance.now()
  const probing = (async () => {
    for (;;) {
      const sent = performance.now()
      const response = await fetch(`http://127.0.0.1:${there.proxyPort}/chat/notes`, {
        headers: { authorization: `Bearer ${task.handle}` },
      })
      await response.arrayBuffer()
      if (!response.ok) return
      passed = sent
      await pause(EVERY_MS)
    }
  })()
  await pause(300 + Math.random() * 1000) // at no particular moment of any interval
  const start = performance.now()
  await here.control.endAccess({ target: target(task), reason: 'bench' })
  const ordered = performance.now() - start
  const [cutAt] = await Promise.all([cut, probing])
  for (const { target: blocked } of await here.control.blocks()) await here.control.lift({ target: blocked })
  return { ordered, request: Math.max(0, passed - start), stream: cutAt - start }
}

async function table(gateways: readonly [TestGateway, TestGateway]): Promise<string[]> {
  const lines = [
    '| Ended | Order answered p50 / p99 ms | Last request that passed p50 / p99 / max ms | Open stream cut p50 / p99 / max ms |',
    '|---|---:|---:|---:|',
  ]
  for (const [name, target] of Object.entries(KINDS)) {
    const samples: Sample[] = []
    for (let n = 0; n < SAMPLES; n++) samples.push(await measure(gateways, target))
    const of = (member: keyof Sample, ...at: readonly number[]) => {
      const sorted = samples.map((sample) => sample[member]).toSorted((a, b) => a - b)
      return at
        .map((q) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? 0))
        .join(' / ')
    }
    lines.push(
      `| ${name} | ${of('ordered', 0.5, 0.99)} | ${of('request', 0.5, 0.99, 1)} | ${of('stream', 0.5, 0.99, 1)} |`,
    )
    process.stdout.write(`${lines.at(-1)}\n`)
  }
  return lines
}

const [upstream, redis] = await Promise.all([
  startWebSockets(['chat.keyless.test'], (request, response) => {
    if (request.url !== '/events') return void response.end('{}')
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    response.write('data: first\n\n')
  }),
  startRedis(),
])
const operations = { read: { match: ['GET /events', 'GET /notes'], access: 'read' as const } }
const site = await writeSite(
  { port: upstream.tlsPort, caPem: upstream.caPem },
  {
    services: [{ name: 'chat', operations }],
    credentials: { chat: 'a-standing-key-of-chat' },
    settings: { agents: [{ id: AGENT, owner: 'ana', purpose: 'bench' }] },
  },
)
const keys = join(site.dir, 'keys')
await mkdir(keys, { mode: 0o700 })
const yaml = `${site.yaml}keys_dir: ${keys}\npublic_url: http://gateway.keyless.test\nredis: { url: "${redis.url}" }\n`
const gateways = [await startGateway(yaml), await startGateway(yaml)] as const
try {
  const loads = [load()]
  const spoken = await table(gateways)
  loads.push(load())
  const client = new Redis(redis.url)
  await client.call('ACL', 'SETUSER', 'default', 'resetchannels')
  client.disconnect()
  const silent = await table(gateways)
  loads.push(load())
  const text = [
    '# Revocation, measured',
    '',
    'Written by `npm run bench:revocation`; do not edit.',
    '',
    ...(await machine()).slice(0, 2),
    `- Node ${process.versions.node}; load average of the machine before, between and after the tables: ${loads.join(', ')}`,
    '',
    'Ordered at one gateway, observed at another. Both run in one process, with the agent and the upstream, and share its one processor core: that',
    'makes the figures larger. Redis is a process of its own. All times are from the moment in which the order was sent to the control',
    `socket; ${SAMPLES} orders a line, each at no particular moment, with an event stream open and a request every ${EVERY_MS} ms.`,
    '',
    '## With messages',
    '',
    ...spoken,
    '',
    '## Without messages',
    '',
    'Redis refuses SUBSCRIBE and PUBLISH (`ACL SETUSER default resetchannels`), so replicas find out by asking alone.',
    '',
    ...silent,
    '',
  ].join('\n')
  await writeFile(join(ROOT, 'bench', 'REVOCATION.md'), text)
} finally {
  for (const gateway of gateways) await gateway.gateway.stop()
  await Promise.all([upstream.stop(), redis.stop(), site.remove()])
}
process.exit()
