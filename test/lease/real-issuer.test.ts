/** The lease room, a real Redis and a real authorization server together. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createMemoryCache } from '../../gateway/lease/cache-memory.ts'
import { createRedisCache } from '../../gateway/lease/cache-redis.ts'
import { createLeases, type Leases } from '../../gateway/lease/leases.ts'
import { type Clock, systemClock } from '../../gateway/protocol/clock.ts'
import type { Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import {
  type AuthorizationServer,
  RESOURCE,
  startAuthorizationServer,
  TOKEN_LIFE_S,
} from '../provider/authorization-server.fixture.ts'
import { providerTools } from '../provider/tools.fixture.ts'
import { type Entry, field, grant, permit, plain, receipt, sealKey, service } from './lease.fixture.ts'
import { connect, type RedisServer, startRedis } from './redis.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-leases-'))
const billing = service()
const key = sealKey()
const entries: Entry[] = []
let server: AuthorizationServer
let redis: RedisServer
const connections: Redis[] = []

beforeAll(async () => {
  server = await startAuthorizationServer()
  redis = await startRedis()
  for (let i = 0; i < 2; i += 1) connections.push(await connect(redis.url))
  writeFileSync(join(dir, 'secret'), server.secret)
})

afterAll(async () => {
  for (const connection of connections) connection.disconnect()
  await redis.stop()
  await server.stop()
  rmSync(dir, { recursive: true, force: true })
})

function provider(o: Record<string, unknown> = {}): Provider {
  const config = credentialSchema.parse({
    provider: 'oauth_client_credentials',
    token_url: server.tokenUrl,
    client_id: 'basic',
    client_auth: 'client_secret_basic',
    client_secret: { file: 'secret' },
    scope: 'invoices:read',
    resource: RESOURCE,
    addresses: ['127.0.0.1/32'],
    ...o,
  })
  return createProvider(config, providerTools(dir, { fetchFor: () => server.fetch }))
}

function room(o: { redis?: Redis; provider?: Provider; clock?: Clock } = {}): Leases {
  const clock = o.clock ?? systemClock
  return createLeases({
    providers: new Map([['billing', o.provider ?? provider()]]),
    cache:
      o.redis === undefined
        ? createMemoryCache({ clock })
        : createRedisCache({ redis: o.redis, prefix: `test-${process.pid}:` }),
    sealKey: key,
    clock,
    record: async (kind, grant, fields) => void entries.push({ kind, grant, fields }),
  })
}

const live = () => grant({ expiresAt: Math.floor(Date.now() / 1000) + 900 })

test('two hundred calls on two replicas make one token request, and all carry that token', async () => {
  const replicas = connections.map((connection) => room({ redis: connection }))
  const same = permit({ service: billing, grant: live() })
  const before = server.requests()
  const all = await Promise.all(Array.from({ length: 200 }, (_, i) => replicas[i % 2]?.acquire(same, receipt)))
  const sent = await Promise.all(all.map(async (lease) => lease?.attach(plain())))
  expect(server.requests() - before).toBe(1)
  const tokens = new Set(sent.map((outbound) => field(outbound ?? plain(), 'authorization')))
  expect(tokens.size).toBe(1)
  expect(decodeJwt([...tokens][0]?.slice('Bearer '.length) ?? '')).toMatchObject({
    aud: RESOURCE,
    scope: 'invoices:read',
  })
  for (const replica of replicas) await replica.close()
})

test('the lease ends a tenth before the token does', async () => {
  const leases = room()
  const nowS = Date.now() / 1000
  const { facts } = await leases.acquire(permit({ service: billing, grant: live() }), receipt)
  expect(facts.ephemeral).toBe(true)
  expect(Math.abs(facts.expiresAt - nowS - TOKEN_LIFE_S * 0.9)).toBeLessThan(5)
  await leases.close()
})

test('the end of a grant revokes its token at the issuer, and the record says so', async () => {
  const leases = room({
    provider: provider({ resource: undefined, revocation_url: server.revocationUrl }),
    ...(connections[0] && { redis: connections[0] }),
  })
  const ended = live()
  const lease = await leases.acquire(permit({ service: billing, grant: ended }), receipt)
  await leases.purge(ended)
  expect(entries.at(-1)).toMatchObject({
    kind: 'lease.revoked',
    grant: ended,
    fields: { cred_id: lease.facts.credentialId, outcome: 'revoked', service: 'billing', ephemeral: true },
  })
  await leases.close()
})

test('an issuer that is down: what is held serves until its last millisecond, then the call is refused and never goes out bare', async () => {
  const mortal = await startAuthorizationServer()
  writeFileSync(join(dir, 'mortal'), mortal.secret)
  let aheadMs = 0
  const clock: Clock = {
    nowMs: () => systemClock.nowMs() + aheadMs,
    elapsedMs: () => systemClock.elapsedMs() + aheadMs,
  }
  const leases = room({ clock, provider: provider({ token_url: mortal.tokenUrl, client_secret: { file: 'mortal' } }) })
  const same = permit({ service: billing, grant: live() })
  await leases.acquire(same, receipt)
  await mortal.stop()
  aheadMs = TOKEN_LIFE_S * 900 - 5_000
  expect(leases.acquire(same, receipt)).not.toBeInstanceOf(Promise)
  aheadMs = TOKEN_LIFE_S * 900 + 1
  await expect(leases.acquire(same, receipt)).rejects.toMatchObject({ code: 'credential_unavailable' })
  await leases.close()
})

test('half of a hundred tokens, on a machine busy with other tests, are issued, recorded and stored within 100 ms', async () => {
  const leases = room(connections[0] && { redis: connections[0] })
  const timesMs: number[] = []
  for (let i = 0; i < 100; i += 1) {
    const startMs = performance.now()
    await leases.acquire(permit({ service: billing, grant: live() }), receipt)
    timesMs.push(performance.now() - startMs)
  }
  expect(timesMs.sort((a, b) => a - b)[49]).toBeLessThan(100)
  await leases.close()
})
