/** A WebSocket client under `keyless run`, unmodified and without a key: through the forwarder, the gateway and the upstream's own library. */
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { ROOT, run, start } from '../rig/process.ts'
import { startWebSockets, type WebSocketUpstream } from '../rig/websocket.ts'

const KEY = 'sk-canary-00112233445566778899aabbccddeeff'
let upstream: WebSocketUpstream
let site: OpenSite

beforeAll(async () => {
  upstream = await startWebSockets(['chat.keyless.test'])
  site = await openSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [
        {
          name: 'chat',
          operations: {
            socket: { match: ['GET /echo'], access: 'write', websocket: true },
            read: { match: ['GET /read'], access: 'read' },
          },
        },
      ],
      credentials: { chat: KEY },
    },
  )
})

afterAll(async () => {
  await site.stop()
  await upstream.stop()
})

const url = (path = '/echo') => `wss://chat.keyless.test:${upstream.tlsPort}${path}`
const args = (program: string) => [
  join(ROOT, 'gateway', 'keyless.ts'),
  ...['run', '--config', join(site.gateway.dir, 'keyless.yaml'), '--task', 'chat', '--verbose', '--'],
  ...[process.execPath, '--input-type=module', '-e', program],
]

const talk = `
  const ws = new WebSocket('URL', ['v1'])
  ws.onopen = () => ws.send('hello')
  ws.onmessage = ({ data }) => { console.log('said', data, ws.protocol); ws.close(3000, 'bye') }
  ws.onclose = ({ code, reason }) => { console.log('closed', code, reason); process.exit() }
  ws.onerror = ({ message }) => console.log('error', message)`

it("Node's own WebSocket talks, with the key that only the gateway has", async () => {
  const { stdout, stderr } = await run(process.execPath, args(talk.replace('URL', url())))
  expect(stdout, stderr).toBe('said hello v1\nclosed 3000 bye\n')
  expect(upstream.handshakes.at(-1)?.headers.authorization).toBe(`Bearer ${KEY}`)
  expect(stdout + stderr).not.toContain(KEY)
})

it('a refusal reaches it as a refusal, not as silence', async () => {
  const { stdout } = await run(process.execPath, args(talk.replace('URL', url('/read'))))
  expect(stdout).toMatch(/error .*\nclosed 1006/)
})

it('it is closed with the reason when its task is ended', async () => {
  const child = start(process.execPath, args(talk.replace("ws.close(3000, 'bye')", '').replace('URL', url())))
  const [, task = ''] = await child.says(/task (task_[0-9a-f-]+)/)
  await child.says(/said hello/)
  await site.gateway.control.completeTask(task)
  await child.says(/closed 1008 grant_revoked/)
  await child.ended
})
