/**
 * `npm run bench:grants`: what a grant costs. Issue and delegation over the control socket of a gateway of its own, everything
 * recorded and fsynced; verification inside one process, on first sight and remembered. Writes bench/GRANTS.md.
 */
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { openGateway } from '../gateway/main.ts'
import type { Inbound } from '../gateway/protocol/message.ts'
import { loadSettings } from '../gateway/settings.ts'
import { ROOT } from '../test/rig/process.ts'
import { machine } from './report.ts'

const AGENTS = ['research', 'search', 'extract', 'call'].map((name) => `spiffe://keyless.local/agent/${name}`)
const PLAN = { warm: 200, alone: 300, together: 2000, at: 16, verified: 500, remembered: 200_000 } as const

interface Opened {
  readonly token: string
  readonly handle: string
  readonly access_token: string
}

const dir = await mkdtemp(join(tmpdir(), 'keyless-bench-'))
const settingsFile = join(dir, 'keyless.yaml')
await writeFile(
  settingsFile,
  stringify({
    data_dir: join(dir, 'data'),
    listen: { proxy: '127.0.0.1:0', control: '127.0.0.1:0' },
    services: ['github'],
    agents: AGENTS.map((id) => ({ id, owner: 'bench', purpose: 'be measured' })),
  }),
)
const settings = await loadSettings(settingsFile)
const gateway = await openGateway(settings)
const sockets = new Agent({ keepAlive: true })
try {
  const lines = [
    '# Grants, measured',
    '',
    'Written by `npm run bench:grants`; do not edit.',
    '',
    ...(await machine()).slice(0, 2),
    `- Node ${process.versions.node}; gateway and load in one process, log fsynced, SQLite store`,
    '',
    '| | per second | p50 ms | p99 ms |',
    '|---|--:|--:|--:|',
    await requests('root grant, alone', openTask, { count: PLAN.alone, at: 1 }),
    await requests(`root grant, ${PLAN.at} at once`, openTask, { count: PLAN.together, at: PLAN.at }),
    ...(await delegations()),
    '',
    '| Verification of a signed grant | µs |',
    '|---|--:|',
    ...(await verifications()),
    '',
  ]
  const text = lines.join('\n')
  process.stdout.write(text)
  await writeFile(join(ROOT, 'bench', 'GRANTS.md'), text)
} finally {
  sockets.destroy()
  await gateway.stop()
  await rm(dir, { recursive: true })
}
process.exit()

function openTask(): Promise<Opened> {
  return post('/tasks', 'application/json', JSON.stringify({ purpose: 'be measured', scope: 'github:*' }))
}

function delegate(parent: string, depth: number): Promise<Opened> {
  const form = new URLSearchParams({
    grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
    subject_token: parent,
    subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    requested_actor: AGENTS[depth % AGENTS.length] as string,
    scope: 'github:issues.*',
  })
  return post('/oauth/token', 'application/x-www-form-urlencoded', form.toString())
}

async function delegations(): Promise<string[]> {
  const { token } = await openTask()
  const { access_token: deep } = await delegate((await delegate(token, 1)).access_token, 2)
  return [
    await requests('child of a root, alone', () => delegate(token, 1), { count: PLAN.alone, at: 1 }),
    await requests(`child of a root, ${PLAN.at} at once`, () => delegate(token, 1), {
      count: PLAN.together,
      at: PLAN.at,
    }),
    await requests('child at depth 3, alone', () => delegate(deep, 3), { count: PLAN.alone, at: 1 }),
  ]
}

async function requests(
  name: string,
  send: () => Promise<unknown>,
  { count, at }: { count: number; at: number },
): Promise<string> {
  for (let i = 0; i < PLAN.warm; i++) await send()
  const took: number[] = []
  const lane = async () => {
    for (let i = 0; i < count / at; i++) {
      const started = performance.now()
      await send()
      took.push(performance.now() - started)
    }
  }
  const started = performance.now()
  await Promise.all(Array.from({ length: at }, lane))
  const perS = Math.round((took.length * 1000) / (performance.now() - started))
  took.sort((a, b) => a - b)
  const [p50 = 0, p99 = 0] = [0.5, 0.99].map((part) => took[Math.floor(took.length * part)])
  return `| ${name} | ${perS.toLocaleString('en')} | ${p50.toFixed(2)} | ${p99.toFixed(2)} |`
}

async function verifications(): Promise<string[]> {
  const root = await openTask()
  const one = await delegate(root.token, 1)
  const two = await delegate(one.access_token, 2)
  const rows = [
    ['root', () => openTask().then(({ token }) => token), root.token],
    ['depth 1', () => delegate(root.token, 1).then((issued) => issued.access_token), one.access_token],
    ['depth 3', () => delegate(two.access_token, 3).then((issued) => issued.access_token), two.access_token],
  ] as const
  const lines: string[] = []
  for (const [name, fresh, known] of rows) {
    const tokens: string[] = []
    for (let i = 0; i < PLAN.verified; i++) tokens.push(await fresh())
    lines.push(`| ${name}, first sight | ${(await firstSight(tokens)).toFixed(1)} |`)
    lines.push(`| ${name}, remembered | ${remembered(known).toFixed(2)} |`)
  }
  return lines
}

async function firstSight(tokens: readonly string[]): Promise<number> {
  const started = performance.now()
  for (const token of tokens) await gateway.house.grants.authenticate(inboundWith(token))
  return ((performance.now() - started) * 1000) / tokens.length
}

function remembered(token: string): number {
  const inbound = inboundWith(token)
  const ask = () => {
    if (gateway.house.grants.authenticate(inbound) instanceof Promise) throw new Error('the token was not remembered')
  }
  for (let i = 0; i < PLAN.remembered; i++) ask()
  const started = performance.now()
  for (let i = 0; i < PLAN.remembered; i++) ask()
  return ((performance.now() - started) * 1000) / PLAN.remembered
}

/** What `authenticate` looks at; the rest of a request is not its business. */
function inboundWith(token: string): Inbound {
  return { tenant: settings.tenant, presented: { token, scheme: 'bearer' } } as unknown as Inbound
}

async function post(path: string, type: string, body: string): Promise<Opened> {
  const sent = request({
    socketPath: settings.listen.controlSocket,
    method: 'POST',
    path,
    agent: sockets,
    headers: { host: 'localhost', 'content-type': type, 'content-length': Buffer.byteLength(body) },
  })
  sent.end(body)
  const [answer] = await once(sent, 'response')
  let text = ''
  for await (const chunk of answer) text += String(chunk)
  if (answer.statusCode >= 300) throw new Error(`${path} answered ${answer.statusCode}: ${text}`)
  return JSON.parse(text) as Opened
}
