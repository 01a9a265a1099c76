/**
 * What replicas share beyond leases, with the real stores: sealed secrets in Redis and in Postgres, connections whose refresh tokens
 * rotate, and a Redis that fails over.
 */
import { mkdir } from 'node:fs/promises'
import { connect as connectTcp, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { reverse } from '../invariant/agent.fixture.ts'
import { type Site, writeSite } from '../invariant/services.fixture.ts'
import { type Accounts, SCOPES, startAccounts } from '../rig/accounts.ts'
import { browser } from '../rig/browser.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { freePort } from '../rig/ports.ts'
import { startPostgres, type TestPostgres } from '../rig/postgres.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { type QuietUpstream, startQuiet } from './quiet.fixture.ts'

type Pair = readonly [TestGateway, TestGateway]

let upstream: QuietUpstream
let accounts: Accounts
let postgres: TestPostgres
/** Who is Redis now, and the address that leads there. */
let primary: TestRedis
let secondary: TestRedis
let link: Link
let site: Site
let controlPorts: readonly [number, number]

beforeAll(async () => {
  controlPorts = [await freePort(), await freePort()]
  const base = `http://127.0.0.1:${controlPorts[0]}`
  ;[upstream, accounts, postgres, primary, secondary] = await Promise.all([
    startQuiet(['notes.keyless.test', 'mail.keyless.test']),
    startAccounts(`${base}/connect/callback`),
    startPostgres(),
    startRedis(),
    startRedis(),
  ])
  link = await openLink(portOf(primary))
  process.env.KEYLESS_TEST_FLEET = accounts.clientSecret
  const operations = { read: { match: ['GET /list'], access: 'read' } } as const
  site = await writeSite(upstream, {
    services: ['notes', 'mail'].map((name) => ({ name, operations: operations as never })),
    credentials: {
      notes: { provider: 'static', value: { sealed: 'notes-key' } },
      mail: {
        provider: 'oauth_refresh_token',
        token_url: `${accounts.issuer}/token`,
        authorization_url: `${accounts.issuer}/auth`,
        issuer: accounts.issuer,
        client_id: 'keyless',
        client_auth: 'client_secret_basic',
        client_secret: { env: 'KEYLESS_TEST_FLEET' },
        scope: SCOPES,
        addresses: ['127.0.0.1/32'],
      },
    },
    settings: { public_url: base, keys_dir: 'KEYS' },
  })
}, 60_000)

afterAll(async () => {
  delete process.env.KEYLESS_TEST_FLEET
  await Promise.all([link?.close(), primary?.stop(), secondary?.stop(), postgres?.stop()])
  await Promise.all([upstream?.stop(), accounts?.stop(), site?.remove()])
})

const portOf = ({ url }: TestRedis) => Number(new URL(url).port)

/** Two replicas on a keys directory of their own. */
async function replicas(name: string, stores: string): Promise<Pair> {
  const keys = join(site.dir, name)
  await mkdir(keys, { mode: 0o700 })
  const yaml = `${site.yaml.replace('KEYS', keys)}${stores}\n`
  const begin = (i: 0 | 1) =>
    startGateway(`${yaml}audit: { origin: "keyless.test/${i}" }\n`, { controlPort: controlPorts[i] })
  const one = await begin(0) // makes the keys
  return [one, await begin(1)]
}

async function call(gateway: TestGateway, handle: string, service: string): Promise<{ status: number; text: string }> {
  const { status, bytes } = await reverse(gateway.proxyPort, handle, { path: `/${service}/list` })
  return { status, text: bytes.toString('latin1') }
}

describe.each(['Redis', 'Postgres'])('with the sealed store in %s', (store) => {
  let pair: Pair
  beforeAll(async () => {
    const also = store === 'Postgres' ? `postgres: { url: "${await postgres.fresh()}" }` : ''
    pair = await replicas(`keys-${store}`, `redis: { url: "redis://127.0.0.1:${link.port}/${store.length}" }\n${also}`)
  }, 60_000)
  afterAll(() => Promise.all((pair ?? []).map((one) => one.stop())))

  it('a secret that is set, changed, sealed anew or removed at one replica is so at the other, at its next lease', async () => {
    const [one, two] = pair
    const used = async () => {
      const { handle } = await two.openTask('notes:read')
      const { status, text } = await call(two, handle, 'notes')
      return status === 200 ? upstream.sent.at(-1) : text
    }
    expect(await used()).toContain('credential_unconfigured')
    await one.control.setSecret('notes-key', 'canary-first')
    expect(await used()).toBe('Bearer canary-first')
    await expect(two.control.setSecret('notes-key', 'canary-other')).rejects.toMatchObject({
      code: 'instruction_invalid',
    })
    await two.control.rotateSecret('notes-key', 'canary-second')
    expect(await used()).toBe('Bearer canary-second')
    await one.control.reseal()
    expect(await used()).toBe('Bearer canary-second')
    await one.control.removeSecret('notes-key')
    expect(await used()).toContain('credential_unconfigured')
  })

  it('a connection that was made at one replica serves tasks at both, and refreshes that race never end it', async () => {
    const [one, two] = pair
    accounts.person = 'ana@mail.test'
    const at = browser()
    const { url, ticket } = await one.control.beginConnection({ credential: 'mail' })
    expect((await at.submit(await at.open(url))).text).toContain('Connected')
    expect(await two.control.connectProgress(ticket)).toEqual({ state: 'done' })
    const shown = accounts.asked.length
    const statuses = await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const { handle } = await (i % 2 === 0 ? one : two).openTask('mail:read')
        return (await call(i % 3 === 0 ? one : two, handle, 'mail')).status
      }),
    )
    expect(statuses).toEqual(statuses.map(() => 200))
    const tokens = accounts.asked.slice(shown).map(({ token }) => token)
    expect(tokens).toHaveLength(20)
    expect(new Set(tokens).size).toBe(20) // each token was shown once
    expect(await two.control.connections()).toMatchObject([{ credential: 'mail', state: 'connected' }])
  }, 30_000)
})

describe('when Redis fails over', () => {
  it('says at the start what a Redis like this would lose, and goes on with whoever takes its place at the same address, if need be from nothing', async () => {
    const admins = [primary, secondary].map(({ url }) => new Redis(url)) as [Redis, Redis]
    await admins[0].config('SET', 'maxmemory-policy', 'allkeys-lru')
    await admins[0].config('SET', 'repl-diskless-sync-delay', '0')
    const [one, two] = await replicas('keys-failover', `redis: { url: "redis://127.0.0.1:${link.port}/1" }`)
    try {
      const warned = one.gateway.warnings.join('\n')
      expect(warned).toMatch(/may evict sealed secrets.*allkeys-lru.*noeviction/)
      expect(warned).toMatch(/loses sealed secrets.*appendonly/)
      await one.control.setSecret('notes-key', 'canary-survivor')
      const { handle, task } = await one.openTask('notes:read')
      expect((await call(two, handle, 'notes')).status).toBe(200)
      const [old, next] = admins
      await next.replicaof('127.0.0.1', portOf(primary))
      await expect.poll(() => next.info('replication'), { timeout: 10_000 }).toContain('master_link_status:up')
      await old.wait(1, 1_000)
      await next.replicaof('NO', 'ONE')
      await old.replicaof('127.0.0.1', portOf(secondary))
      link.leadTo(portOf(secondary)) // connections that are open stay with the old one
      await expect.poll(async () => (await one.openTask('notes:read').catch(() => undefined)) !== undefined).toBe(true)
      await expect.poll(async () => (await call(two, handle, 'notes')).status).toBe(200)
      expect(upstream.sent.at(-1)).toBe('Bearer canary-survivor')
      await expect
        .poll(() =>
          two.control.completeTask(task).then(
            () => true,
            () => false,
          ),
        )
        .toBe(true)
      expect((await call(one, handle, 'notes')).status).toBe(401)
      const living = await one.openTask('notes:read')
      await next.flushall()
      await expect.poll(async () => (await call(two, living.handle, 'notes')).status).toBe(401)
      const { handle: fresh } = await one.openTask('notes:read')
      expect((await call(two, fresh, 'notes')).text).toContain('credential_unconfigured')
    } finally {
      for (const admin of admins) admin.disconnect()
      await Promise.all([one.stop(), two.stop()])
    }
  }, 30_000)
})

interface Link {
  readonly port: number
  /** Where new connections go. */
  leadTo(port: number): void
  close(): Promise<void>
}

/** A name in front of Redis, as DNS or a virtual address is. */
async function openLink(first: number): Promise<Link> {
  let target = first
  const open = new Set<Socket>()
  const server: Server = createServer((near) => {
    const far = connectTcp(target, '127.0.0.1')
    for (const socket of [near, far]) {
      open.add(socket)
      socket.on('error', () => undefined)
      socket.on('close', () => {
        open.delete(socket)
        near.destroy()
        far.destroy()
      })
    }
    near.pipe(far).pipe(near)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  return {
    port: (server.address() as { port: number }).port,
    leadTo(port) {
      target = port
    },
    close: () =>
      new Promise((done) => {
        for (const socket of open) socket.destroy()
        server.close(() => done())
      }),
  }
}
