import { inspect } from 'node:util'
import { describe, expect, test } from 'vitest'
import type { LeaseCache } from '../../gateway/lease/cache.ts'
import { createMemoryCache } from '../../gateway/lease/cache-memory.ts'
import type { Lease } from '../../gateway/lease/lease.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import type { Credential, Provider } from '../../gateway/provider/provider.ts'
import {
  countingProvider,
  fakeClock,
  field,
  grant,
  leaseRig,
  permit,
  plain,
  receipt,
  sealKey,
  service,
  T0,
  unauthorized,
} from './lease.fixture.ts'

const billing = service()

async function failure(lease: Lease | Promise<Lease>): Promise<GatewayError> {
  const error = await Promise.resolve(lease).then(
    () => undefined,
    (cause: unknown) => cause,
  )
  expect(error).toBeInstanceOf(GatewayError)
  return error as GatewayError
}

function attempt(acquire: () => Lease | Promise<Lease>): Promise<Lease> {
  return (async () => acquire())()
}

test('only a permit of the policy room and a receipt of the audit room are accepted: anything else does not compile', () => {
  const { leases } = leaseRig()
  const made = permit({ service: billing })
  const alike = { grant: made.grant, endpoint: made.endpoint, decision: made.decision, isAllowed: true }
  // @ts-expect-error the shape of a permit is not a permit
  const withoutPermit = () => leases.acquire(alike, receipt)
  // @ts-expect-error the shape of a receipt is not a receipt
  const withoutReceipt = () => leases.acquire(made, { event: 'event', seq: 0 })
  expect([withoutPermit, withoutReceipt]).toHaveLength(2)
})

describe('acquiring', () => {
  test('issues once, then answers without a promise', async () => {
    const { leases, provider } = leaseRig()
    const same = permit({ grant: grant(), service: billing })
    const first = await leases.acquire(same, receipt)
    const second = leases.acquire(same, receipt)
    expect(second).not.toBeInstanceOf(Promise)
    expect(first.facts.cache).toBe('miss')
    expect((second as Lease).facts.cache).toBe('hit')
    expect((second as Lease).facts.credentialId).toBe(first.facts.credentialId)
    expect(provider.requests).toHaveLength(1)
  })

  test('records lease.issued durably before the lease exists', async () => {
    const order: string[] = []
    const rig = leaseRig({
      record: async (kind) => {
        await new Promise((done) => setImmediate(done))
        order.push(kind)
      },
    })
    await rig.leases.acquire(permit({ service: billing }), receipt)
    order.push('used')
    expect(order).toEqual(['lease.issued', 'used'])
  })

  test('records provider, credential, its id, expiry and grant, and never the secret', async () => {
    const { leases, entries } = leaseRig()
    const to = grant()
    const lease = await leases.acquire(permit({ grant: to, service: billing }), receipt)
    expect(entries).toEqual([
      {
        kind: 'lease.issued',
        grant: to,
        fields: {
          provider: 'counting',
          credential: 'billing',
          cred_id: lease.facts.credentialId,
          ephemeral: true,
          expires: lease.facts.expiresAt,
          service: 'billing',
          cause: 'needed',
          ms: 0,
        },
      },
    ])
    expect(JSON.stringify(entries)).not.toContain('token-')
    expect(inspect(lease, { depth: 9, showHidden: true })).not.toContain('token-')
  })

  test('uses and keeps nothing when the issue cannot be recorded', async () => {
    let isBroken = true
    const rig = leaseRig({
      record: async () => {
        if (isBroken) throw new GatewayError('audit_unavailable', 'full')
      },
    })
    const same = permit({ service: billing })
    expect((await failure(rig.leases.acquire(same, receipt))).code).toBe('audit_unavailable')
    isBroken = false
    await rig.leases.acquire(same, receipt)
    expect(rig.provider.requests).toHaveLength(2)
    expect(rig.provider.revoked).toHaveLength(1)
  })

  test('attaches the credential and names it among the values that must not come back', async () => {
    const { leases } = leaseRig()
    const lease = await leases.acquire(permit({ service: billing }), receipt)
    const other = new Secret('other')
    const outbound = await lease.attach(plain({ secrets: [other] }))
    expect(field(outbound, 'authorization')).toMatch(/^Bearer token-/)
    expect(outbound.secrets.map((secret) => `Bearer ${secret.reveal()}`)).toEqual([
      'Bearer other',
      field(outbound, 'authorization'),
    ])
  })

  test('names the Base64 pair of Basic as well', async () => {
    const basic = service({ slots: [{ in: 'basic', username: 'x-access-token' }] })
    const { leases } = leaseRig()
    const lease = await leases.acquire(permit({ service: basic }), receipt)
    const outbound = await lease.attach(plain({ service: basic }))
    const pair = field(outbound, 'authorization')?.slice('Basic '.length)
    expect(Buffer.from(pair ?? '', 'base64').toString()).toMatch(/^x-access-token:token-/)
    expect(outbound.secrets.map((secret) => secret.reveal())).toContain(pair)
  })

  test('gives a service without credential a lease that attaches nothing', async () => {
    const { leases, provider } = leaseRig()
    const unmanaged = service({ name: 'unmanaged', credential: undefined, slots: [] })
    const lease = leases.acquire(permit({ service: unmanaged }), receipt) as Lease
    const request = plain({ service: unmanaged })
    expect(lease.attach(request)).toBe(request)
    expect(await lease.reissue(request, unauthorized)).toBeNull()
    expect(lease.facts).toMatchObject({ provider: 'none', credential: 'none', credentialId: '', ephemeral: true })
    expect(provider.requests).toHaveLength(0)
  })

  test('says which setting is missing, with an example', async () => {
    const { leases } = leaseRig()
    const openai = service({ name: 'openai', credential: 'openai', placeholders: { OPENAI_API_KEY: 'sk-placeholder' } })
    const error = await failure(attempt(() => leases.acquire(permit({ service: openai }), receipt)))
    expect(error.code).toBe('credential_unconfigured')
    expect(error.detail).toContain('credentials.openai')
    expect(error.detail).toContain('{ env: OPENAI_API_KEY }')
  })

  test.each([
    ['grant', { grant: grant() }],
    ['lineage', { grant: grant({ id: 'g', lineageHash: 'other' }) }],
    ['tenant', { grant: grant({ id: 'g', tenant: 'other' }) }],
    ['ttl', { grant: grant({ id: 'g' }), ttlS: 60 }],
    ['service', { grant: grant({ id: 'g' }), service: service({ name: 'other' }) }],
  ])('shares nothing with another %s', async (_what, other) => {
    const { leases, provider } = leaseRig()
    const one = await leases.acquire(permit({ grant: grant({ id: 'g' }), service: billing }), receipt)
    const two = await leases.acquire(permit({ service: billing, ...other }), receipt)
    expect(two.facts.credentialId).not.toBe(one.facts.credentialId)
    expect(provider.requests).toHaveLength(2)
  })

  test('a hundred calls at once make one request to the issuer', async () => {
    const { leases, provider, entries } = leaseRig()
    const same = permit({ service: billing })
    const all = await Promise.all(Array.from({ length: 100 }, () => leases.acquire(same, receipt)))
    expect(new Set(all.map((lease) => lease.facts.credentialId)).size).toBe(1)
    expect(provider.requests).toHaveLength(1)
    expect(entries.filter((entry) => entry.kind === 'lease.issued')).toHaveLength(1)
  })
})

describe('time', () => {
  const hourLater = T0 / 1000 + 3600

  test.each([
    ['the upstream expiry, less a tenth', { lifeS: 300 }, {}, 270_000],
    ['the upstream expiry, less a minute at most', { lifeS: 1_200 }, {}, 1_140_000],
    ['the policy obligation', { lifeS: 3_600 }, { ttlS: 30 }, 30_000],
    ['the grant', { lifeS: 3_600 }, { grant: grant({ expiresAt: T0 / 1000 + 100 }) }, 100_000],
  ])('a lease ends with %s: used at end - 1, not at end nor after', async (_what, life, asked, endMs) => {
    for (const [offsetMs, isReused] of [
      [-1, true],
      [0, false],
      [1, false],
    ] as const) {
      const clock = fakeClock()
      const { leases, provider } = leaseRig({ clock, provider: countingProvider(clock, life) })
      const same = permit({ service: billing, grant: grant({ expiresAt: hourLater }), ...asked })
      const first = await leases.acquire(same, receipt)
      clock.advance(endMs + offsetMs)
      const later = leases.acquire(same, receipt)
      if (isReused) expect((later as Lease).facts.credentialId).toBe(first.facts.credentialId)
      else expect(later).toBeInstanceOf(Promise)
      await Promise.resolve(later).catch(() => undefined)
      if (!isReused && endMs !== 100_000) expect(provider.requests.length).toBeGreaterThan(1)
    }
  })

  test('a grant that has expired gets no credential', async () => {
    const { leases, clock } = leaseRig()
    const same = permit({ service: billing, grant: grant({ expiresAt: T0 / 1000 + 100 }) })
    clock.advance(100_000)
    expect((await failure(leases.acquire(same, receipt))).code).toBe('grant_expired')
  })

  test('a wall clock that goes back does not lengthen a lease', async () => {
    const clock = fakeClock()
    let elapsedMs = 0
    const { leases, provider } = leaseRig({
      clock: { ...clock, elapsedMs: () => elapsedMs },
      provider: countingProvider(clock, { lifeS: 300 }),
    })
    const same = permit({ service: billing })
    await leases.acquire(same, receipt)
    clock.set(T0 - 3_600_000)
    elapsedMs = 270_000
    await leases.acquire(same, receipt)
    expect(provider.requests).toHaveLength(2)
  })

  test('refuses a credential with less than five seconds left', async () => {
    const clock = fakeClock()
    const { leases } = leaseRig({ clock, provider: countingProvider(clock, { lifeS: 5 }) })
    const error = await failure(leases.acquire(permit({ service: billing }), receipt))
    expect(error.code).toBe('credential_unavailable')
    expect(error.detail).toContain('ends in 5 s')
  })

  test('asks the provider for no more than policy and grant leave', async () => {
    const { leases, provider } = leaseRig()
    await leases.acquire(permit({ service: billing, ttlS: 60 }), receipt)
    await leases.acquire(permit({ service: billing, grant: grant({ expiresAt: T0 / 1000 + 30 }), ttlS: 60 }), receipt)
    expect(provider.requests.map((request) => request.ttlS)).toEqual([60, 30])
  })

  test('renews when three quarters of its life are over, or a little earlier, while the old credential serves', async () => {
    const clock = fakeClock()
    const { leases, provider, entries } = leaseRig({ clock, provider: countingProvider(clock, { lifeS: 100 }) })
    const same = permit({ service: billing })
    const first = await leases.acquire(same, receipt)
    clock.advance(0.6 * 90_000 - 1)
    expect((leases.acquire(same, receipt) as Lease).facts).toMatchObject({ credentialId: first.facts.credentialId })
    expect(provider.requests).toHaveLength(1)
    clock.advance(0.15 * 90_000 + 1)
    const during = [leases.acquire(same, receipt), leases.acquire(same, receipt)] as Lease[]
    expect(during.map((lease) => lease.facts.credentialId)).toEqual([
      first.facts.credentialId,
      first.facts.credentialId,
    ])
    await expect.poll(() => entries.length).toBe(2)
    await expect
      .poll(() => (leases.acquire(same, receipt) as Lease).facts.credentialId)
      .not.toBe(first.facts.credentialId)
    expect(provider.requests).toHaveLength(2)
    expect(entries.map(({ kind, fields }) => [kind, fields.cause])).toEqual([
      ['lease.issued', 'needed'],
      ['lease.renewed', 'renewal'],
    ])
  })

  test('keeps the old credential while a renewal fails, and tries again later each time', async () => {
    const clock = fakeClock()
    const provider = countingProvider(clock, { lifeS: 1_000 })
    const { leases } = leaseRig({ clock, provider })
    const same = permit({ service: billing, grant: grant({ expiresAt: T0 / 1000 + 3_600 }) })
    const first = await leases.acquire(same, receipt)
    provider.next = async () => {
      throw new GatewayError('credential_rejected', 'no')
    }
    clock.advance(0.75 * 940_000)
    const attemptsMs: number[] = []
    for (let seconds = 0; seconds < 120; seconds += 1) {
      const before = provider.requests.length
      expect((leases.acquire(same, receipt) as Lease).facts.credentialId).toBe(first.facts.credentialId)
      await new Promise((done) => setImmediate(done))
      if (provider.requests.length > before) attemptsMs.push(seconds)
      clock.advance(1_000)
    }
    const pauses = attemptsMs.slice(1).map((at, i) => at - (attemptsMs[i] ?? 0))
    expect(pauses.length).toBeGreaterThan(2)
    expect(pauses.length).toBeLessThan(8)
    expect(pauses).toEqual(pauses.toSorted((a, b) => a - b))
  })

  test('a renewal waits for as long as the issuer asks, but for no more than a minute', async () => {
    const clock = fakeClock()
    const provider = countingProvider(clock, { lifeS: 1_000 })
    const { leases } = leaseRig({ clock, provider })
    const same = permit({ service: billing, grant: grant({ expiresAt: T0 / 1000 + 3_600 }) })
    await leases.acquire(same, receipt)
    provider.next = async () => {
      throw Object.assign(new GatewayError('credential_unavailable', 'busy'), { retryAfterMs: 600_000 })
    }
    clock.advance(0.75 * 940_000)
    const askedAt: number[] = []
    for (let seconds = 0; seconds < 70; seconds += 1) {
      const before = provider.requests.length
      await leases.acquire(same, receipt)
      await new Promise((done) => setImmediate(done))
      if (provider.requests.length > before) askedAt.push(seconds)
      clock.advance(1_000)
    }
    expect(askedAt).toEqual([0, 60])
  })

  test('prolongs what its issuer can prolong, and gets another one when it cannot any more', async () => {
    const clock = fakeClock()
    const provider = countingProvider(clock, { lifeS: 100 })
    const endsAt: number[] = []
    const { leases, entries } = leaseRig({ clock, provider })
    Object.assign(provider, {
      renew: async (credential: Credential) => {
        endsAt.push(credential.expiresAt)
        return endsAt.length > 1 ? undefined : { ...credential, expiresAt: clock.nowMs() / 1000 + 100 }
      },
    } satisfies Partial<Provider>)
    const same = permit({ service: billing })
    const first = await leases.acquire(same, receipt)
    clock.advance(0.75 * 90_000)
    leases.acquire(same, receipt)
    await expect.poll(() => (leases.acquire(same, receipt) as Lease).facts.expiresAt).toBe(T0 / 1000 + 67 + 90)
    expect((leases.acquire(same, receipt) as Lease).facts.credentialId).toBe(first.facts.credentialId)
    expect(provider.requests).toHaveLength(1)
    clock.advance(0.75 * 90_000)
    leases.acquire(same, receipt)
    await expect
      .poll(() => (leases.acquire(same, receipt) as Lease).facts.credentialId)
      .not.toBe(first.facts.credentialId)
    expect(entries.map(({ kind }) => kind)).toEqual(['lease.issued', 'lease.renewed', 'lease.renewed'])
  })

  test('does not renew what the grant ends anyway', async () => {
    const { leases, clock, provider } = leaseRig()
    const same = permit({ service: billing, grant: grant({ expiresAt: T0 / 1000 + 100 }) })
    await leases.acquire(same, receipt)
    clock.advance(99_000)
    expect(leases.acquire(same, receipt)).not.toBeInstanceOf(Promise)
    expect(provider.requests).toHaveLength(1)
  })
})

describe('after an upstream 401', () => {
  test('drops the credential, issues once more, and hides both', async () => {
    const { leases, provider, entries } = leaseRig()
    const same = permit({ service: billing })
    const lease = await leases.acquire(same, receipt)
    const request = plain()
    const first = await lease.attach(request)
    const second = await lease.reissue(request, unauthorized)
    expect(second).not.toBeNull()
    expect(field(second ?? plain(), 'authorization')).not.toBe(field(first, 'authorization'))
    const hidden = second?.secrets.map((secret) => `Bearer ${secret.reveal()}`) ?? []
    expect(hidden).toContain(field(first, 'authorization'))
    expect(hidden).toContain(field(second ?? plain(), 'authorization'))
    expect(provider.requests).toHaveLength(2)
    expect(entries[1]?.fields.cause).toBe('rejected')
    expect(await lease.reissue(request, unauthorized)).toBeNull()
    const next = leases.acquire(same, receipt) as Lease
    expect(field(await next.attach(plain()), 'authorization')).toBe(field(second ?? plain(), 'authorization'))
  })

  test('fifty calls rejected at once make one new request and share its credential', async () => {
    const { leases, provider } = leaseRig()
    const same = permit({ service: billing })
    const held = await leases.acquire(same, receipt)
    const replayed = await Promise.all(Array.from({ length: 50 }, () => held.reissue(plain(), unauthorized)))
    expect(new Set(replayed.map((outbound) => field(outbound ?? plain(), 'authorization'))).size).toBe(1)
    expect(provider.requests).toHaveLength(2)
  })

  test('uses what another call has already put in its place', async () => {
    const { leases, provider } = leaseRig()
    const same = permit({ service: billing })
    const slow = await leases.acquire(same, receipt)
    const quick = leases.acquire(same, receipt) as Lease
    const replaced = await quick.reissue(plain(), unauthorized)
    const late = await slow.reissue(plain(), unauthorized)
    expect(field(late ?? plain(), 'authorization')).toBe(field(replaced ?? plain(), 'authorization'))
    expect(provider.requests).toHaveLength(2)
  })

  test('does not storm the issuer when the new credential is rejected too', async () => {
    const { leases, clock, provider } = leaseRig()
    const same = permit({ service: billing })
    await (await leases.acquire(same, receipt)).reissue(plain(), unauthorized)
    expect(await (leases.acquire(same, receipt) as Lease).reissue(plain(), unauthorized)).toBeNull()
    expect(provider.requests).toHaveLength(2)
    clock.advance(30_000)
    expect(await (leases.acquire(same, receipt) as Lease).reissue(plain(), unauthorized)).not.toBeNull()
    expect(provider.requests).toHaveLength(3)
  })

  test('has nothing better when a standing key is unchanged, and the new key when it was rotated', async () => {
    const { leases, clock, provider } = leaseRig()
    let key = 'standing-1'
    provider.next = async () => ({ secret: new Secret(key), expiresAt: Number.POSITIVE_INFINITY, ephemeral: false })
    const same = permit({ service: billing })
    const lease = await leases.acquire(same, receipt)
    expect(lease.facts.ephemeral).toBe(false)
    expect(Number.isFinite(lease.facts.expiresAt)).toBe(true)
    expect(await lease.reissue(plain(), unauthorized)).toBeNull()
    key = 'standing-2'
    clock.advance(30_000)
    const rotated = await (leases.acquire(same, receipt) as Lease).reissue(plain(), unauthorized)
    expect(field(rotated ?? plain(), 'authorization')).toBe('Bearer standing-2')
  })

  test('lets the upstream answer stand when the issuer fails', async () => {
    const { leases, provider } = leaseRig()
    const lease = await leases.acquire(permit({ service: billing }), receipt)
    provider.next = async () => {
      throw new GatewayError('credential_rejected', 'no')
    }
    expect(await lease.reissue(plain(), unauthorized)).toBeNull()
  })
})

describe('single use', () => {
  test('is never cached, never shared, and revoked when the call is over', async () => {
    const { leases, provider, entries } = leaseRig()
    const once = permit({ service: billing, singleUse: true })
    const [one, two] = await Promise.all([leases.acquire(once, receipt), leases.acquire(once, receipt)])
    expect(one.facts.credentialId).not.toBe(two.facts.credentialId)
    expect(provider.revoked).toEqual([])
    one[Symbol.dispose]()
    one[Symbol.dispose]()
    await expect.poll(() => entries.at(-1)?.kind).toBe('lease.revoked')
    expect(provider.revoked).toHaveLength(1)
    expect(entries.at(-1)?.fields).toMatchObject({
      cred_id: one.facts.credentialId,
      reason: 'single_use',
      outcome: 'revoked',
    })
    expect(await leases.acquire(once, receipt)).not.toBe(one)
  })

  test('may be replaced once, and both are revoked', async () => {
    const { leases, provider } = leaseRig()
    const lease = await leases.acquire(permit({ service: billing, singleUse: true }), receipt)
    const request = plain()
    expect(await lease.reissue(request, unauthorized)).not.toBeNull()
    expect(await lease.reissue(plain(), unauthorized)).toBeNull()
    lease[Symbol.dispose]()
    await leases.close()
    await expect.poll(() => provider.revoked).toHaveLength(2)
  })

  test('releasing a shared lease revokes nothing', async () => {
    const { leases, provider } = leaseRig()
    const same = permit({ service: billing })
    {
      using lease = await leases.acquire(same, receipt)
      expect(lease.facts.cache).toBe('miss')
    }
    expect(leases.acquire(same, receipt)).not.toBeInstanceOf(Promise)
    await leases.close()
    expect(provider.revoked).toEqual([])
  })
})

describe('the end of a grant', () => {
  test('drops and revokes its credentials, also those replaced before, and no other grant loses any', async () => {
    const { leases, provider, entries } = leaseRig()
    const [ended, other] = [grant(), grant()]
    const lease = await leases.acquire(permit({ service: billing, grant: ended }), receipt)
    const request = plain()
    const first = await lease.attach(request)
    const second = await lease.reissue(request, unauthorized)
    const kept = await leases.acquire(permit({ service: billing, grant: other }), receipt)
    await leases.purge(ended)
    expect(provider.revoked.map((token) => `Bearer ${token}`).sort()).toEqual(
      [field(first, 'authorization'), field(second ?? plain(), 'authorization')].sort(),
    )
    expect(entries.filter((entry) => entry.kind === 'lease.revoked').map((entry) => entry.grant)).toEqual([
      ended,
      ended,
    ])
    const still = leases.acquire(permit({ service: billing, grant: other }), receipt) as Lease
    expect(still.facts.credentialId).toBe(kept.facts.credentialId)
    expect(
      (await failure(attempt(() => leases.acquire(permit({ service: billing, grant: ended }), receipt)))).code,
    ).toBe('grant_revoked')
  })

  test('reaches a credential that is being issued at that moment', async () => {
    const { leases, provider } = leaseRig()
    const ended = grant()
    let finish = (): void => undefined
    const gate = new Promise<void>((done) => (finish = done))
    const ordinary = provider.next
    provider.next = async (request, signal) => {
      await gate
      return ordinary(request, signal)
    }
    const late = failure(leases.acquire(permit({ service: billing, grant: ended }), receipt))
    await leases.purge(ended)
    finish()
    expect((await late).code).toBe('grant_revoked')
    await leases.close()
    expect(provider.revoked).toHaveLength(1)
  })

  test('records a revocation that failed and raises nothing', async () => {
    const { leases, provider, entries } = leaseRig()
    const ended = grant()
    await leases.acquire(permit({ service: billing, grant: ended }), receipt)
    Object.assign(provider, { revoke: () => Promise.reject(new Error('token-leak')) })
    await leases.purge(ended)
    expect(entries.at(-1)).toMatchObject({
      kind: 'lease.revoked',
      fields: { outcome: 'failed', reason: 'grant_ended' },
    })
    expect(JSON.stringify(entries)).not.toContain('token-')
  })
})

describe('failures of the issuer', () => {
  test('are shared by everyone waiting and kept for at most five seconds', async () => {
    const { leases, clock, provider, entries } = leaseRig()
    const same = permit({ service: billing })
    const ordinary = provider.next
    provider.next = async () => {
      throw new GatewayError('credential_rejected', 'invalid_client')
    }
    const waiting = await Promise.all(Array.from({ length: 20 }, () => failure(leases.acquire(same, receipt))))
    expect(new Set(waiting.map((error) => error.code))).toEqual(new Set(['credential_rejected']))
    expect((await failure(leases.acquire(same, receipt))).code).toBe('credential_rejected')
    expect(provider.requests).toHaveLength(1)
    provider.next = ordinary
    clock.advance(4_999)
    await failure(leases.acquire(same, receipt))
    const of = { provider: 'counting', credential: 'billing', service: 'billing', cause: 'needed', ms: 0 }
    expect(entries).toEqual([
      { kind: 'lease.failed', grant: same.grant, fields: { ...of, code: 'credential_rejected' } },
    ])
    clock.advance(1)
    await leases.acquire(same, receipt)
    expect(provider.requests).toHaveLength(2)
  })

  test('an unexpected one becomes a coded refusal without its text', async () => {
    const { leases, provider } = leaseRig()
    provider.next = async () => {
      throw new TypeError('Cannot read token-abc123')
    }
    const error = await failure(leases.acquire(permit({ service: billing }), receipt))
    expect(error.code).toBe('credential_unavailable')
    expect(inspect(error, { depth: 9 })).not.toContain('token-abc123')
    expect((error.cause as Error).stack).toContain('leases.test.ts')
  })

  test('a provider that hangs is left after its time, whatever it does about the signal', async () => {
    const { leases, provider } = leaseRig({ timing: { issueTimeoutMs: 20 } })
    provider.next = () => new Promise(() => undefined)
    const error = await failure(leases.acquire(permit({ service: billing }), receipt))
    expect(error.code).toBe('credential_unavailable')
  })

  test('closing stops an issue under way and keeps no failure of it', async () => {
    const { leases, provider } = leaseRig()
    provider.next = () => new Promise(() => undefined)
    const waiting = failure(leases.acquire(permit({ service: billing }), receipt))
    await expect.poll(() => provider.requests.length).toBe(1)
    await leases.close()
    expect((await waiting).code).toBe('draining')
  })
})

describe('the shared cache', () => {
  function broken(cache: LeaseCache, methods: readonly (keyof LeaseCache)[]): LeaseCache {
    const down = async (): Promise<never> => {
      throw new GatewayError('store_unavailable', 'down')
    }
    return new Proxy(cache, {
      get(target, name: keyof LeaseCache) {
        if (name === 'isShared') return target.isShared
        const method = target[name] as (...args: unknown[]) => unknown
        return methods.includes(name) ? down : method.bind(target)
      },
    })
  }

  test('a second process finds the credential sealed there and asks nobody', async () => {
    const clock = fakeClock()
    const shared = { clock, cache: createMemoryCache({ clock }), sealKey: sealKey(), provider: countingProvider(clock) }
    const [one, two] = [leaseRig(shared), leaseRig(shared)]
    const same = permit({ service: billing })
    const first = await one.leases.acquire(same, receipt)
    const second = await two.leases.acquire(same, receipt)
    expect(second.facts).toEqual({ ...first.facts, cache: 'hit' })
    expect(shared.provider.requests).toHaveLength(1)
    expect(two.entries).toEqual([])
  })

  test('a process with another lease key finds nothing it could use', async () => {
    const clock = fakeClock()
    const shared = { clock, cache: createMemoryCache({ clock }), provider: countingProvider(clock) }
    const same = permit({ service: billing })
    await leaseRig({ ...shared, sealKey: sealKey() }).leases.acquire(same, receipt)
    await leaseRig({ ...shared, sealKey: sealKey() }).leases.acquire(same, receipt)
    expect(shared.provider.requests).toHaveLength(2)
  })

  test.each([
    [['get', 'set', 'remove', 'lock', 'unlock', 'purge']],
    [['lock', 'unlock']],
    [['set']],
    [['get']],
    [['unlock', 'remove', 'purge']],
  ] as const)('is only a cache: with %j down, calls go on and end with their grant', async (methods) => {
    const clock = { ...fakeClock(), elapsedMs: () => performance.now() }
    const { leases, provider } = leaseRig({
      clock,
      cache: broken(createMemoryCache({ clock }), methods),
      timing: { lockMs: 30 },
    })
    const ended = grant()
    const same = permit({ service: billing, grant: ended })
    const lease = await leases.acquire(same, receipt)
    expect(leases.acquire(same, receipt)).not.toBeInstanceOf(Promise)
    expect(await lease.reissue(plain(), unauthorized)).not.toBeNull()
    await leases.purge(ended)
    expect(provider.revoked).toHaveLength(2)
    await failure(attempt(() => leases.acquire(same, receipt)))
  })

  test('a crash between issue and store costs one more issue, and the dead holder delays by the time of its lock only', async () => {
    const clock = { ...fakeClock(), elapsedMs: () => performance.now() }
    const cache = createMemoryCache({ clock })
    const shared = { clock, sealKey: sealKey(), provider: countingProvider(clock), timing: { lockMs: 30 } }
    const crashed = leaseRig({ ...shared, cache: broken(cache, ['set', 'unlock']) })
    const same = permit({ service: billing })
    await crashed.leases.acquire(same, receipt)
    const survivor = leaseRig({ ...shared, cache })
    await survivor.leases.acquire(same, receipt)
    expect(shared.provider.requests).toHaveLength(2)
  })

  test('a purge by one replica reaches what the others hold', async () => {
    const clock = fakeClock()
    const shared = { clock, cache: createMemoryCache({ clock }), sealKey: sealKey(), provider: countingProvider(clock) }
    const [one, two] = [leaseRig(shared), leaseRig(shared)]
    const ended = grant()
    const same = permit({ service: billing, grant: ended })
    await one.leases.acquire(same, receipt)
    await two.leases.acquire(same, receipt)
    await one.leases.purge(ended)
    expect((await failure(attempt(() => two.leases.acquire(same, receipt)))).code).toBe('grant_revoked')
    expect(shared.provider.revoked).toHaveLength(1)
  })
})
