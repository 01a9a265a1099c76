import { createSecretKey, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import fc from 'fast-check'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Secret } from '../../gateway/protocol/secret.ts'
import { openPostgresSealed } from '../../gateway/provider/sealed/postgres.ts'
import { openRedisSealed } from '../../gateway/provider/sealed/redis.ts'
import { createSealed, resealAll, type SealedRows, type SealingKeys } from '../../gateway/provider/sealed/sealed.ts'
import { openSqliteSealed } from '../../gateway/provider/sealed/sqlite.ts'
import { loadKeys } from '../../gateway/settings/keys.ts'
import { advanceSealingKey, openSealingKeys, removeSealingKeys } from '../../gateway/settings/keys-sealed.ts'
import { describeSealed } from '../conformance/sealed.ts'
import { manualClock } from '../rig/clock.ts'
import { startPostgres, type TestPostgres } from '../rig/postgres.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-sealed-'))
let redis: TestRedis
let postgres: TestPostgres

beforeAll(async () => {
  ;[redis, postgres] = await Promise.all([startRedis(), startPostgres()])
})
afterAll(async () => {
  await Promise.all([redis?.stop(), postgres?.stop()])
  rmSync(dir, { recursive: true, force: true })
})

describeSealed('SQLite', async () => {
  const clock = manualClock()
  const path = join(dir, 'rows.sqlite')
  return {
    open: async () => openSqliteSealed({ path, clock }),
    pass: async (ms) => clock.advance(ms),
    close: async () => {},
  }
})

describeSealed('Redis', async () => {
  const connection = new Redis(redis.url)
  return {
    open: async () => openRedisSealed({ redis: connection, prefix: redis.prefix }),
    pass: (ms) => pause(ms),
    close: async () => connection.disconnect(),
  }
})

describeSealed('PostgreSQL', async () => {
  const url = await postgres.fresh()
  return { open: async () => openPostgresSealed(url), pass: (ms) => pause(ms), close: async () => {} }
})

function rowsIn(file: string): SealedRows {
  return openSqliteSealed({ path: join(dir, file), clock: manualClock() })
}

function keysOf(...keys: Buffer[]): SealingKeys {
  const made = keys.map((key) => createSecretKey(key))
  const id = made.length - 1
  return { current: async () => ({ id, key: made[id] as never }), find: async (one) => made[one] }
}

describe('sealed values', () => {
  const key = randomBytes(32)

  it('come back as they were put, whatever text it is', async () => {
    const sealed = createSealed({ rows: rowsIn('any.sqlite'), keys: keysOf(key), tenant: 'acme' })
    let n = 0
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'grapheme', minLength: 1, maxLength: 300 }), async (text) => {
        const name = `s${n++}`
        await sealed.write(name, new Secret(text), 0)
        expect((await sealed.read(name))?.secret.reveal()).toBe(text)
      }),
      { numRuns: 20 },
    )
    await sealed.close()
  })

  it('open only for the tenant and name that they were sealed for, by their key, unchanged', async () => {
    const rows = rowsIn('moved.sqlite')
    const sealed = createSealed({ rows, keys: keysOf(key), tenant: 'acme' })
    await sealed.write('github', new Secret('canary'), 0)
    const { value } = (await rows.read({ tenant: 'acme', name: 'github' })) as { value: Buffer }
    expect(value.includes('canary')).toBe(false)
    await rows.write({ tenant: 'acme', name: 'openai' }, value, 0)
    await rows.write({ tenant: 'evil', name: 'github' }, value, 0)
    await expect(sealed.read('openai')).rejects.toMatchObject({ code: 'credential_unconfigured' })
    const evil = createSealed({ rows, keys: keysOf(key), tenant: 'evil' })
    await expect(evil.read('github')).rejects.toMatchObject({ code: 'credential_unconfigured' })
    const stranger = createSealed({ rows, keys: keysOf(randomBytes(32)), tenant: 'acme' })
    await expect(stranger.read('github')).rejects.toMatchObject({ code: 'credential_unconfigured' })
    for (let at = 0; at < value.length; at++) {
      const bent = Buffer.from(value)
      bent[at] = (bent[at] ?? 0) ^ 1
      const name = `bent-${at}`
      await rows.write({ tenant: 'acme', name }, bent, 0)
      await expect(sealed.read(name), `byte ${at}`).rejects.toMatchObject({ code: 'credential_unconfigured' })
    }
    for (const short of [Buffer.alloc(0), Buffer.from([1]), value.subarray(0, 32)]) {
      await rows.write({ tenant: 'acme', name: `short-${short.length}` }, short, 0)
      await expect(sealed.read(`short-${short.length}`)).rejects.toMatchObject({ code: 'credential_unconfigured' })
    }
    await sealed.close()
  })

  it('are in a file that nobody else can read', () => {
    expect(statSync(join(dir, 'any.sqlite')).mode & 0o777).toBe(0o600)
  })

  it('open after everything was sealed anew, twice, while somebody writes; and then not with the first key', async () => {
    const keysDir = join(dir, 'keys')
    await loadKeys(keysDir)
    const rows = rowsIn('rotated.sqlite')
    const open = (tenant: string) => createSealed({ rows, keys: openSealingKeys(keysDir), tenant })
    const [acme, other] = [open('acme'), open('other')]
    for (let i = 0; i < 10; i++) await acme.write(`s${i}`, new Secret(`value ${i}`), 0)
    await other.write('s', new Secret('of another tenant'), 0)
    for (const round of [1, 2, 3]) {
      const current = await advanceSealingKey(keysDir)
      expect(current).toBe(round)
      const writing = acme
        .read('s0')
        .then((row) => acme.write('s0', new Secret(`value 0 in ${round}`), row?.version ?? 0))
      expect(await resealAll(rows, openSealingKeys(keysDir))).toBe(11)
      await writing
      await removeSealingKeys(keysDir, current)
      for (let i = 1; i < 10; i++) expect((await acme.read(`s${i}`))?.secret.reveal()).toBe(`value ${i}`)
      expect((await other.read('s'))?.secret.reveal()).toBe('of another tenant')
      // A gateway that was running all the while reads what the new key sealed, and one that starts now does too.
      expect((await open('acme').read('s9'))?.secret.reveal()).toBe('value 9')
    }
    const first = openSealingKeys(keysDir)
    expect(await first.find(1)).toBeUndefined() // removed: it seals nothing any more
    expect(await first.find(2)).toBeDefined() // a replica may have begun to seal with it a moment ago
    await rows.close()
  })
})

describe('a store that is away', () => {
  it('refuses with a code and no text of the server', async () => {
    const connection = new Redis(redis.url, { lazyConnect: true, enableOfflineQueue: false, maxRetriesPerRequest: 0 })
    connection.on('error', () => undefined)
    const away = openPostgresSealed('postgres://keyless:canary@127.0.0.1:1/nowhere')
    for (const rows of [openRedisSealed({ redis: connection }), away]) {
      const error = (await rows.read({ tenant: 'a', name: 'b' }).catch((cause: unknown) => cause)) as Error
      expect(error).toMatchObject({ code: 'store_unavailable' })
      expect(`${error.message} ${error.stack}`).not.toContain('canary')
    }
    connection.disconnect()
    await away.close()
  })
})
