/** Credentials that an authorization server issues: through the lease room with a log on disk, and through a whole gateway. */
import { createSecretKey, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { Agent, request } from 'node:http'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { createAudit } from '../gateway/audit/audit.ts'
import { loadLogKey, openLog } from '../gateway/audit/log.ts'
import { controlClient } from '../gateway/cli/control-client.ts'
import { createMemoryCache } from '../gateway/lease/cache-memory.ts'
import { createLeases } from '../gateway/lease/leases.ts'
import { systemClock } from '../gateway/protocol/clock.ts'
import { createProvider, credentialSchema } from '../gateway/provider/registry.ts'
import { createUpstream } from '../gateway/upstream/forward.ts'
import { grant, permit, receipt, service } from '../test/lease/lease.fixture.ts'
import { RESOURCE } from '../test/provider/authorization-server.fixture.ts'
import { providerTools } from '../test/provider/tools.fixture.ts'
import { freePort, untilListening } from '../test/rig/ports.ts'
import { ROOT, start } from '../test/rig/process.ts'
import type { FarSide } from './authorization-server.ts'
import { row, type Timed, timed } from './timing.ts'

const PLAN = { alone: 120, together: 160, at: 16, tasks: 60, calls: 5 } as const
const ORIGIN = 'bench.keyless.test/log'
const addresses = ['127.0.0.1/32']

/** How clients prove themselves → credential in settings. */
function credentials(far: FarSide, dir: string): Readonly<Record<string, object>> {
  const common = {
    ...{ provider: 'oauth_client_credentials', token_url: far.tokenUrl, addresses },
    ...{ scope: 'invoices:read', resource: RESOURCE },
  }
  const byKey = (alg: string) => ({
    ...{ ...common, client_id: `jwt-${alg}`, client_auth: 'private_key_jwt', kid: `client-${alg}` },
    key: { file: join(dir, alg) },
    assertion_audience: new URL(far.tokenUrl).origin,
  })
  const basic = { client_id: 'basic', client_auth: 'client_secret_basic', client_secret: { file: join(dir, 'secret') } }
  return { secret: { ...common, ...basic }, 'key-es256': byKey('ES256'), 'key-rs256': byKey('RS256') }
}

export async function issuerTable(dir: string): Promise<string[]> {
  const server = start(process.execPath, [join(ROOT, 'bench/authorization-server.ts')])
  try {
    const far = JSON.parse((await server.says(/^FAR (.*)$/m))[1] as string) as FarSide
    await writeFile(join(dir, 'secret'), far.secret, { mode: 0o600 })
    for (const alg of ['ES256', 'RS256'])
      await writeFile(join(dir, alg), far.keys[`jwt-${alg}`]?.pem ?? '', { mode: 0o600 })
    return [
      '| A token from an authorization server on this machine | p50 / p99 ms | CPU ms of the gateway |',
      '|---|--:|--:|',
      ...(await throughLeases(far, dir)),
      ...(await throughGateway(far, dir)),
    ]
  } finally {
    await server.stop()
  }
}

/** Everything between a permit and a lease: claim, turn, request, sealed copy on disk for its revocation, fsynced entry, sealed cache. */
async function throughLeases(far: FarSide, dir: string): Promise<string[]> {
  const logDir = join(dir, 'log')
  await mkdir(logDir)
  const key = await loadLogKey(logDir, ORIGIN)
  const log = await openLog({ dir: logDir, origin: ORIGIN, key, durability: 'fsync', clock: systemClock })
  const hmacKey = createSecretKey(randomBytes(32))
  const audit = createAudit({ log, clock: systemClock, node: 'bench', version: '0', hmacKey })
  const timeouts = { connectTimeoutMs: 5_000, headersTimeoutMs: 10_000, bodyTimeoutMs: 10_000 }
  const { fetchFor } = createUpstream({ ...timeouts, ca: [], hosts: new Map(), clock: systemClock })
  const tools = providerTools(dir, { fetchFor })
  const all = Object.entries(credentials(far, dir))
  const leases = createLeases({
    providers: new Map(all.map(([name, config]) => [name, createProvider(credentialSchema.parse(config), tools)])),
    cache: createMemoryCache({ clock: systemClock }),
    sealKey: createSecretKey(randomBytes(32)),
    clock: systemClock,
    custodyFile: join(dir, 'custody.sqlite'),
    record: (kind, whose, fields) => audit.recordUnder(kind, whose, fields),
  })
  const rows: string[] = []
  for (const [name] of all) {
    const to = service({ name, credential: name })
    const acquire = () => leases.acquire(permit({ service: to, grant: livingGrant() }), receipt)
    const line = (how: string, one: Timed) => rows.push(row(`${titleOf(name)}, lease room, ${how}`, ...cells(one)))
    line('one at a time', await timed(PLAN.alone, acquire))
    line(`${PLAN.at} at once`, await timed(PLAN.together, acquire, { at: PLAN.at }))
  }
  await leases.close()
  await audit.close()
  return rows
}

/** A gateway in a process of its own, everything on: the first call of each task asks the issuer, the others find the credential. */
async function throughGateway(far: FarSide, dir: string): Promise<string[]> {
  const [proxy, control] = [await freePort(), await freePort()]
  const all = credentials(far, dir)
  const file = join(dir, 'keyless.yaml')
  for (const name of Object.keys(all)) await writeFile(join(dir, `${name}.yaml`), stringify(serviceFile(name, far)))
  await writeFile(
    file,
    stringify({
      data_dir: join(dir, 'data'),
      listen: { proxy: `127.0.0.1:${proxy}`, control: `127.0.0.1:${control}` },
      services: Object.keys(all).map((name) => join(dir, `${name}.yaml`)),
      credentials: all,
      upstream: { hosts: Object.fromEntries(Object.keys(all).map((name) => [hostOf(name), '127.0.0.1'])) },
    }),
  )
  const gateway = start(process.execPath, [join(ROOT, 'gateway/keyless.ts'), 'start', '-c', file])
  const sockets = new Agent({ keepAlive: true })
  try {
    await Promise.race([
      untilListening(proxy, 20_000),
      gateway.ended.then((ended) => Promise.reject(new Error(ended.stderr))),
    ])
    const owner = controlClient(join(dir, 'data', 'control.sock'))
    const rows: string[] = []
    for (const name of Object.keys(all)) {
      const handles: string[] = []
      for (let i = 0; i < PLAN.tasks + 20; i++)
        handles.push((await owner.openTask({ scope: `${name}:*`, purpose: 'be measured' })).handle)
      const get = (handle: string | undefined) =>
        call({ port: proxy, url: `http://${hostOf(name)}:${far.apiPort}/items/1`, handle: handle ?? '', sockets })
      const cold = await timed(PLAN.tasks, (i) => get(handles[i]), { warm: 20 })
      const warm = await timed(PLAN.tasks * PLAN.calls, (i) => get(handles[i % handles.length]), { warm: 20 })
      rows.push(row(`${titleOf(name)}, whole gateway, first call of a task`, ...cells(cold).slice(0, 1), ''))
      rows.push(row(`${titleOf(name)}, whole gateway, each call after it`, ...cells(warm).slice(0, 1), ''))
    }
    return rows
  } finally {
    sockets.destroy()
    await gateway.stop()
  }
}

interface Call {
  readonly port: number
  readonly url: string
  readonly handle: string
  readonly sockets: Agent
}

async function call({ port, url, handle, sockets }: Call): Promise<void> {
  const basic = `Basic ${Buffer.from(`task:${handle}`).toString('base64')}`
  const headers = { host: new URL(url).host, 'proxy-authorization': basic }
  const sent = request({ host: '127.0.0.1', port, path: url, agent: sockets, headers })
  sent.end()
  const [answer] = await once(sent, 'response')
  for await (const _ of answer);
  if (answer.statusCode !== 200) throw new Error(`the gateway answered ${answer.statusCode}`)
}

function serviceFile(name: string, { apiPort }: FarSide): object {
  return {
    ...{ name, title: 'Bench', hosts: [hostOf(name)], ports: [apiPort], unsafe_cleartext: true, addresses },
    slots: [{ in: 'header', name: 'authorization', prefix: 'Bearer ' }],
    operations: { 'items.read': { match: ['GET /items/{id}'], access: 'read' } },
  }
}

function hostOf(name: string): string {
  return `${name}.keyless.test`
}

function titleOf(name: string): string {
  const titles: Record<string, string> = {
    secret: '`client_secret_basic`',
    'key-es256': '`private_key_jwt`, ES256',
    'key-rs256': '`private_key_jwt`, RS256',
  }
  return titles[name] ?? name
}

export function livingGrant() {
  const nowS = Math.floor(Date.now() / 1000)
  return grant({ issuedAt: nowS, expiresAt: nowS + 900 })
}

function cells({ p50, p99, cpu }: Timed): string[] {
  return [`${p50.toFixed(1)} / ${p99.toFixed(1)}`, (cpu / 1000).toFixed(2)]
}
