/** Who is calling: what is presented, what it becomes, and when it stops to be anything. */
import { createHash, createSecretKey, randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { Authenticator } from '../../gateway/grant/authenticate.ts'
import { createTokenSeal } from '../../gateway/grant/chain/token.ts'
import { digestOf, newHandle } from '../../gateway/grant/handle.ts'
import { Liveness } from '../../gateway/grant/life/liveness.ts'
import { marksOf } from '../../gateway/grant/life/task.ts'
import { createRecords } from '../../gateway/grant/store/record.ts'
import type { GrantStore } from '../../gateway/grant/store/store.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'
import {
  about,
  billing,
  endTask,
  freshStore,
  grantsWith,
  ISSUER,
  openTask,
  presenting,
  registry,
  signingKey,
  storeKey,
  triage,
} from './grant.fixture.ts'

const code = (expected: string) => expect.objectContaining({ code: expected })
/** The refusal, whether thrown at once or later. */
const refusal = async (work: () => unknown): Promise<GatewayError> => {
  try {
    await work()
  } catch (cause) {
    if (cause instanceof GatewayError) return cause
    throw cause
  }
  throw new Error('it was not refused')
}

describe('a handle and a signed grant', () => {
  it('stand for the same grant, as Basic password, Bearer token or in a slot', async () => {
    const grants = grantsWith()
    const { grant, handle, token } = await openTask(grants)
    for (const presented of [handle, token]) {
      for (const scheme of ['basic', 'bearer', 'slot'] as const) {
        expect(await grants.authenticate(presenting(presented, { scheme }))).toEqual(grant)
      }
    }
  })

  it('are answered without a promise once known, with the same object', async () => {
    const grants = grantsWith()
    const { handle, token } = await openTask(grants)
    for (const presented of [handle, token]) {
      const first = await grants.authenticate(presenting(presented))
      expect(grants.authenticate(presenting(presented))).toBe(first)
    }
  })

  it('are answered without a promise from the first time on with an embedded store, for handles', async () => {
    const grants = grantsWith()
    const { grant, handle } = await openTask(grants)
    expect(grants.authenticate(presenting(handle))).toEqual(grant)
  })

  it('work after a restart with the same store and key', async () => {
    const clock = manualClock()
    const store = freshStore(clock)
    const { grant, handle, token } = await openTask(grantsWith({ store, clock }))
    const restarted = grantsWith({ store, clock })
    expect(await restarted.authenticate(presenting(handle))).toEqual(grant)
    expect(await restarted.authenticate(presenting(token))).toEqual(grant)
  })

  it('are worth nothing to another tenant, cached or not', async () => {
    const grants = grantsWith()
    const { handle, token } = await openTask(grants)
    for (const round of ['cold', 'warm']) {
      for (const presented of [handle, token]) {
        const other = await refusal(() => grants.authenticate(presenting(presented, { tenant: 'other' })))
        expect(other.code, round).toBe('grant_invalid')
        await grants.authenticate(presenting(presented))
      }
    }
  })

  it.each([true, false])('die together at the second of their expiry, cached: %s', async (isWarm) => {
    const clock = manualClock()
    const grants = grantsWith({ clock })
    const { handle, token } = await openTask(grants)
    const both = async () => {
      for (const presented of [handle, token]) await grants.authenticate(presenting(presented))
    }
    if (isWarm) await both()
    clock.advance(900_000 - 1)
    if (isWarm) await both()
    clock.advance(1)
    for (const presented of [handle, token]) {
      const late = await refusal(() => grants.authenticate(presenting(presented)))
      expect(late.code).toBe('grant_expired')
      expect(late.detail).toContain('2026-06-01T12:15:00.000Z')
    }
  })

  it('die at once when the task ends, cached or not, and stay dead after a restart', async () => {
    const clock = manualClock()
    const store = freshStore(clock)
    const grants = grantsWith({ store, clock })
    const warm = await openTask(grants)
    const cold = await openTask(grants)
    await grants.authenticate(presenting(warm.handle))
    await grants.authenticate(presenting(warm.token))
    for (const { grant } of [warm, cold]) await endTask(grants, grant)
    for (const house of [grants, grantsWith({ store, clock })]) {
      for (const presented of [warm.handle, warm.token, cold.handle, cold.token]) {
        const dead = await refusal(() => house.authenticate(presenting(presented)))
        expect(dead.code).toBe('grant_revoked')
        expect(dead.detail).toContain('completed')
      }
    }
  })

  it('are refused when their agent has left the registry, and follow its attributes while it has not', async () => {
    const clock = manualClock()
    const store = freshStore(clock)
    const { handle, token } = await openTask(grantsWith({ store, clock }))
    const raised = grantsWith({ store, clock, agents: registry({ ...triage, riskTier: 'high' }) })
    expect(await raised.authenticate(presenting(handle))).toMatchObject({ agent: { riskTier: 'high' } })
    const without = grantsWith({ store, clock, agents: registry(billing) })
    for (const presented of [handle, token]) {
      expect(await refusal(() => without.authenticate(presenting(presented)))).toMatchObject({ code: 'agent_unknown' })
    }
  })

  it('from a replica whose clock is ahead work within 30 s of difference, not beyond', async () => {
    for (const [aheadMs, works] of [
      [30_000, true],
      [31_000, false],
    ] as const) {
      const [here, ahead] = [manualClock(), manualClock()]
      ahead.advance(aheadMs)
      const store = freshStore(here)
      const { grant, handle, token } = await openTask(grantsWith({ store, clock: ahead }))
      const grants = grantsWith({ store, clock: here })
      for (const presented of [handle, token]) {
        if (works) expect(await grants.authenticate(presenting(presented))).toEqual(grant)
        else
          expect(await refusal(() => grants.authenticate(presenting(presented)))).toMatchObject({
            code: 'grant_invalid',
          })
      }
    }
  })
})

describe('what is no grant', () => {
  it('is told apart: nothing, and nothing usable; with what to do, without repeating it', async () => {
    const grants = grantsWith()
    const missing = await refusal(() => grants.authenticate(presenting(null)))
    expect(missing.code).toBe('grant_missing')
    expect(missing.detail).toContain('keyless run')
    for (const [presented, says] of [
      ['', '0 characters'],
      ['sekret', '6 characters'],
      ['sekret.part', 'neither a handle'],
      ['sekret.a.b.c', 'neither a handle'],
      ['ghp_sekretsekretsekret', 'neither a handle'],
      ['kh_sekret', 'cut short'],
      [`kh_${'!'.repeat(43)}`, 'cut short'],
      [newHandle(), 'not known'],
      [`${newHandle()}x`, 'cut short'],
      ['sekret.b.c', 'signed grant'],
      ['..', 'signed grant'],
    ] as const) {
      const bad = await refusal(() => grants.authenticate(presenting(presented)))
      expect(bad.code, presented).toBe('grant_invalid')
      expect(bad.detail, presented).toContain(says)
      expect(bad.detail.toLowerCase()).toContain('open a new task')
      expect(bad.detail).not.toContain('sekret')
    }
  })

  it('names where it was found', async () => {
    const grants = grantsWith()
    const at = async (scheme: 'basic' | 'bearer' | 'slot') =>
      (await refusal(() => grants.authenticate(presenting('nope', { scheme })))).detail
    expect(await at('basic')).toContain('as Basic password')
    expect(await at('bearer')).toContain('as Bearer token')
    expect(await at('slot')).toContain('in the credential slot')
  })

  it('is refused without being hashed or asked for when it is longer than 16 KiB', async () => {
    const { grants, asked } = counting()
    for (const long of ['a'.repeat(16 * 1024 + 1), `kh_${'a'.repeat(1024 * 1024)}`, 'a.'.repeat(1024 * 1024)]) {
      expect((await refusal(() => grants.authenticate(presenting(long)))).detail).toContain('16384')
    }
    expect(asked()).toBe(0)
  })

  it('costs the store nothing when it has not the shape of a handle', async () => {
    const { grants, asked } = counting()
    for (const bad of ['kh_', 'kh_short', `kh_${'é'.repeat(43)}`])
      await refusal(() => grants.authenticate(presenting(bad)))
    expect(asked()).toBe(0)
  })

  it('is a token of ours whose grant the store has never heard of', async () => {
    const { token } = await openTask(grantsWith())
    expect(await refusal(() => grantsWith().authenticate(presenting(token)))).toMatchObject({ code: 'grant_invalid' })
  })
})

describe('handles', () => {
  it('are 32 random bytes that no store ever sees', async () => {
    expect(newHandle()).toMatch(/^kh_[A-Za-z0-9_-]{43}$/)
    expect(new Set(Array.from({ length: 1000 }, newHandle)).size).toBe(1000)
    expect(digestOf('kh_x')).toBe(createHash('sha256').update('kh_x').digest('base64url'))
    const seen: unknown[] = []
    const store = watching(freshStore(), (method, given) => void seen.push(method, given))
    const grants = grantsWith({ store })
    const { handle, token } = await openTask(grants)
    await grants.authenticate(presenting(handle))
    await grants.authenticate(presenting(token))
    const text = JSON.stringify(seen)
    expect(text).toContain(digestOf(handle))
    for (const secret of [handle, handle.slice(3), token, token.split('.')[2] as string])
      expect(text).not.toContain(secret)
  })
})

/** One character of a record is another. @param at place; a fraction of the whole, or counted from the end. */
function flipped(stored: Record<string, unknown>, at: number): Record<string, unknown> {
  const chars = [...String(stored.body)]
  const place = at < 0 ? chars.length + at : at < 1 ? Math.floor(chars.length * at) : at
  chars[place] = chars[place] === 'A' ? 'B' : 'A'
  return { ...stored, body: chars.join('') }
}

describe('a store that someone else writes to', () => {
  it('cannot widen a grant, move it to another handle, task or tenant, or bring in one of its own', async () => {
    const tampering: ((stored: Record<string, unknown>, other: Record<string, unknown>) => Record<string, unknown>)[] =
      [
        ...[2, 0.25, 0.5, 0.75, -2].map((at) => (stored: Record<string, unknown>) => flipped(stored, at)),
        // As records were before they were encrypted.
        (stored) => ({ ...stored, body: `${'A'.repeat(43)}{"grant":{"id":"${stored.id}"},"marks":${stored.marks}}` }),
        (stored, other) => ({ ...stored, body: other.body }),
        (stored, other) => ({ ...other, handleDigest: stored.handleDigest }),
        (stored) => ({ ...stored, body: `${'A'.repeat(43)}${String(stored.body).slice(43)}` }),
        (stored) => ({ ...stored, body: String(stored.body).slice(43) }),
        (stored) => ({ ...stored, body: '' }),
        (stored) => ({ ...stored, tenant: 'other' }),
      ]
    for (const tamper of tampering) {
      const clock = manualClock()
      const inner = freshStore(clock)
      const { handle } = await openTask(grantsWith({ store: inner, clock }))
      const wide = await openTask(grantsWith({ store: inner, clock }), { scope: 'github:* openai:*' })
      const store: GrantStore = {
        ...inner,
        byHandle(tenant, digest) {
          const found = inner.byHandle(tenant, digest) as unknown as { stored: never; ended: undefined }
          const other = inner.byId(tenant, wide.grant.id) as unknown as { stored: never; ended: undefined }
          return { ...found, isSuspended: false, stored: tamper(found.stored, other.stored) as never }
        },
      }
      const grants = grantsWith({ store, clock })
      expect(await refusal(() => grants.authenticate(presenting(handle))), tamper.toString()).toMatchObject({
        code: 'grant_invalid',
      })
    }
  })

  it('cannot answer for one grant with another, whole and sealed as it is', async () => {
    const clock = manualClock()
    const inner = freshStore(clock)
    const own = await openTask(grantsWith({ store: inner, clock }))
    const wide = await openTask(grantsWith({ store: inner, clock }), { scope: 'github:* openai:*' })
    const instead = () => inner.byId('acme', wide.grant.id)
    const task = () => inner.task('acme', wide.grant.task.id)
    const grants = grantsWith({ store: { ...inner, byHandle: instead, byId: instead, task }, clock })
    for (const token of [own.handle, own.token, newHandle()])
      expect(await refusal(() => grants.authenticate(presenting(token)))).toMatchObject({ code: 'grant_invalid' })
    expect(await refusal(() => endTask(grants, own.grant))).toMatchObject({ code: 'task_unknown' })
    await expect(grants.heartbeat(about(own.grant))).rejects.toMatchObject({ code: 'task_unknown' })
  })

  it('is refused after the key of the store was replaced: old grants do not outlive it', async () => {
    const clock = manualClock()
    const store = freshStore(clock)
    const { handle, token } = await openTask(grantsWith({ store, clock }))
    const rekeyed = grantsWith({ store, clock, storeKey: createSecretKey(randomBytes(32)) })
    for (const presented of [handle, token]) {
      expect(await refusal(() => rekeyed.authenticate(presenting(presented)))).toMatchObject({ code: 'grant_invalid' })
    }
    expect(await rekeyed.list('acme')).toEqual([])
  })
})

describe('memory', () => {
  it('holds at most ten thousand tokens, and those that were pushed out still work', async () => {
    const clock = manualClock()
    const records = createRecords(storeKey)
    const { grant } = await openTask(grantsWith({ clock }))
    const store = {
      trustMs: Number.POSITIVE_INFINITY,
      byHandle: (_: string, handleDigest: string) => ({
        stored: records.close(grant, { handleDigest, marks: marksOf(grant) }),
        ended: undefined,
        isSuspended: false,
      }),
    }
    const authenticator = new Authenticator({
      store: store as unknown as GrantStore,
      records,
      seal: createTokenSeal({ issuer: ISSUER, keys: { current: signingKey, retired: [] } }),
      agents: new Map([[triage.id, triage]]),
      clock,
      liveness: new Liveness(clock),
      firstSight: async () => {},
    })
    const first = newHandle()
    authenticator.authenticate(presenting(first))
    for (let i = 0; i < 10_500; i++) authenticator.authenticate(presenting(newHandle()))
    expect(authenticator.size).toBe(10_000)
    expect(authenticator.authenticate(presenting(first))).toEqual(grant)
    authenticator.end('acme', grant.task.id, { reason: 'completed', untilS: grant.expiresAt })
    expect(authenticator.size).toBe(0)
  })

  it('keeps nothing of tokens that were refused', async () => {
    const grants = grantsWith()
    const { token } = await openTask(grants)
    const before = process.memoryUsage().heapUsed
    for (let i = 0; i < 2_000; i++) await refusal(() => grants.authenticate(presenting(newHandle())))
    for (let i = 0; i < 200; i++) await refusal(() => grants.authenticate(presenting(`${token}${i}`)))
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(30 * 1024 * 1024)
  })
})

describe('a store that replicas share', () => {
  it('is asked again after a second at the latest, so an end elsewhere is seen by then', async () => {
    const clock = manualClock()
    const { grants, elsewhere } = replicas(clock)
    const { grant, handle, token } = await openTask(grants)
    for (const presented of [handle, token]) await grants.authenticate(presenting(presented))
    await endTask(elsewhere, grant)
    clock.advance(1_000)
    for (const presented of [handle, token]) {
      expect(await refusal(() => grants.authenticate(presenting(presented)))).toMatchObject({ code: 'grant_revoked' })
    }
  })

  it('is asked ahead of time by a busy agent, which then never waits, and sees the end even sooner', async () => {
    const clock = manualClock()
    const { grants, elsewhere } = replicas(clock)
    const { grant, handle } = await openTask(grants)
    await grants.authenticate(presenting(handle))
    for (let i = 0; i < 20; i++) {
      clock.advance(600)
      expect(grants.authenticate(presenting(handle))).not.toBeInstanceOf(Promise)
      await settled()
    }
    await endTask(elsewhere, grant)
    clock.advance(600)
    expect(grants.authenticate(presenting(handle))).toEqual(grant) // still trusted, and asks
    await settled()
    expect(await refusal(() => grants.authenticate(presenting(handle)))).toMatchObject({ code: 'grant_revoked' })
  })

  it('is asked once by a hundred requests that come at the same time', async () => {
    const clock = manualClock()
    const { grants, asked } = counting(clock, 1_000)
    const { handle, token } = await openTask(grants)
    for (const presented of [handle, token]) {
      const before = asked()
      await Promise.all(Array.from({ length: 100 }, () => grants.authenticate(presenting(presented))))
      expect(asked() - before).toBe(1)
    }
  })

  it('that fails is trusted no further than a second: then nothing passes until it answers', async () => {
    const clock = manualClock()
    let isDown = false
    const store = watching(shared(freshStore(clock)), () => {
      if (isDown) throw new Error('connect ECONNREFUSED 10.0.0.7:6379')
    })
    const grants = grantsWith({ store, clock })
    const { grant, handle, token } = await openTask(grants)
    await grants.authenticate(presenting(handle))
    isDown = true
    clock.advance(999)
    expect(grants.authenticate(presenting(handle))).toEqual(grant)
    clock.advance(1)
    for (const presented of [handle, token]) {
      const down = await refusal(() => grants.authenticate(presenting(presented)))
      expect(down).toEqual(code('store_unavailable'))
      expect(down.detail).not.toContain('10.0.0.7')
    }
    isDown = false
    expect(await grants.authenticate(presenting(handle))).toEqual(grant)
  })

  it('cannot revive a grant that ended while it was being asked', async () => {
    const clock = manualClock()
    const inner = freshStore(clock)
    const gate = Promise.withResolvers<void>()
    const store: GrantStore = {
      ...inner,
      trustMs: 1_000,
      async byHandle(tenant, digest) {
        const found = inner.byHandle(tenant, digest)
        await gate.promise
        return found
      },
    }
    const grants = grantsWith({ store, clock })
    const { grant, handle } = await openTask(grants)
    const asking = refusal(() => grants.authenticate(presenting(handle)))
    await endTask(grants, grant)
    gate.resolve()
    expect(await asking).toMatchObject({ code: 'grant_revoked' })
  })

  it('cannot have a grant remembered that ends in any step of its being found', async () => {
    for (let steps = 0; steps < 24; steps++) {
      const clock = manualClock()
      const inner = freshStore(clock)
      const gate = Promise.withResolvers<void>()
      const store: GrantStore = {
        ...inner,
        async byHandle(tenant, digest) {
          const found = inner.byHandle(tenant, digest)
          await gate.promise
          return found
        },
      }
      const authenticator = new Authenticator({
        ...{
          store,
          clock,
          liveness: new Liveness(clock),
          records: createRecords(storeKey),
          seal: createTokenSeal({ issuer: ISSUER, keys: { current: signingKey, retired: [] } }),
        },
        agents: new Map([[triage.id, triage]]),
        firstSight: async () => {},
      })
      const { grant, handle } = await openTask(grantsWith({ store: inner, clock }))
      const first = Promise.resolve(authenticator.authenticate(presenting(handle))).catch(() => undefined)
      gate.resolve()
      for (let step = 0; step < steps; step++) await undefined
      authenticator.end('acme', grant.task.id, { reason: 'completed', untilS: grant.expiresAt })
      await first
      expect(await refusal(() => authenticator.authenticate(presenting(handle))), `after ${steps} steps`).toMatchObject(
        {
          code: 'grant_revoked',
        },
      )
    }
  })

  it('that fails to write the end still leaves the grant dead in this process', async () => {
    const clock = manualClock()
    const store = watching(freshStore(clock), (method) => {
      if (method === 'end') throw new GatewayError('store_unavailable', 'disk full')
    })
    const grants = grantsWith({ store, clock })
    const { grant, handle, token } = await openTask(grants)
    await grants.authenticate(presenting(handle))
    expect(await refusal(() => endTask(grants, grant))).toMatchObject({ code: 'store_unavailable' })
    for (const presented of [handle, token]) {
      expect(await refusal(() => grants.authenticate(presenting(presented)))).toMatchObject({ code: 'grant_revoked' })
    }
  })
})

const settled = () => new Promise((resolve) => setImmediate(resolve))

/** As a store across a network: every answer is a promise, and others may change it. */
function shared(inner: GrantStore): GrantStore {
  const later = Object.entries(inner).map(([name, value]) => [
    name,
    typeof value === 'function'
      ? async (...given: unknown[]) => (value as (...given: unknown[]) => unknown)(...given)
      : value,
  ])
  return { ...Object.fromEntries(later), trustMs: 1_000 } as GrantStore
}

function watching(inner: GrantStore, see: (method: string, given: unknown[]) => void): GrantStore {
  const watched = Object.entries(inner).map(([name, value]) => [
    name,
    typeof value === 'function'
      ? (...given: unknown[]) => {
          see(name, given)
          return (value as (...given: unknown[]) => unknown)(...given)
        }
      : value,
  ])
  return Object.fromEntries(watched) as GrantStore
}

function replicas(clock: ManualClock) {
  const store = shared(freshStore(clock))
  return { grants: grantsWith({ store, clock }), elsewhere: grantsWith({ store, clock }) }
}

function counting(clock = manualClock(), trustMs = Number.POSITIVE_INFINITY) {
  let count = 0
  const inner = freshStore(clock)
  const store = watching(trustMs === 1_000 ? shared(inner) : inner, (method) => {
    if (method.startsWith('by')) count += 1
  })
  return { grants: grantsWith({ store, clock }), asked: () => count }
}
