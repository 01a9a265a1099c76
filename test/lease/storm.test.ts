/** Issuers that many ask at once, and issuers that fail: how often they are asked, and what their credential is replaced by. */
import { describe, expect, test } from 'vitest'
import type { Lease } from '../../gateway/lease/lease.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import type { Credential } from '../../gateway/provider/provider.ts'
import { countingProvider, fakeClock, grant, leaseRig, permit, plain, receipt, service, T0 } from './lease.fixture.ts'

const billing = service()
const tick = () => new Promise((done) => setImmediate(done))
const away = () => Promise.reject(new GatewayError('credential_unavailable', 'The authorization server is away.'))
const refusal = (lease: Promise<Lease> | Lease) =>
  Promise.resolve(lease).then(
    () => undefined,
    (cause: GatewayError) => cause,
  )

describe('a thousand agents whose credentials end at one time', () => {
  test('renew them one by one, each once, spread over a fifth of their life, a few at once', async () => {
    const clock = fakeClock()
    const provider = countingProvider(clock, { lifeS: 1_000 })
    let underway = 0
    let most = 0
    const issueNow = provider.next
    provider.next = async (request, signal) => {
      underway += 1
      most = Math.max(most, underway)
      await tick()
      underway -= 1
      return issueNow(request, signal)
    }
    const { leases } = leaseRig({ clock, provider })
    const agents = Array.from({ length: 1_000 }, () =>
      permit({ service: billing, grant: grant({ expiresAt: T0 / 1000 + 3_600 }) }),
    )
    await Promise.all(agents.map((agent) => leases.acquire(agent, receipt)))
    expect(provider.requests).toHaveLength(1_000)
    expect(most).toBeLessThanOrEqual(32)
    most = 0
    const lifeMs = 940_000
    const perSecond: number[] = []
    const stepS = 2
    for (let second = 0; second < lifeMs / 1000 - stepS; second += stepS) {
      clock.advance(stepS * 1_000)
      const before = provider.requests.length
      expect(agents.some((agent) => leases.acquire(agent, receipt) instanceof Promise)).toBe(false)
      do await tick()
      while (leases.state.issuers.some(({ underway: asked, waiting }) => asked + waiting > 0))
      perSecond.push((provider.requests.length - before) / stepS)
    }
    const [first, last] = [perSecond.findIndex((n) => n > 0), perSecond.findLastIndex((n) => n > 0)]
    expect(first).toBeGreaterThanOrEqual((0.6 * 940) / stepS - 2)
    expect(last).toBeLessThanOrEqual((0.75 * 940) / stepS + 1)
    expect(Math.max(...perSecond)).toBeLessThan(25) // 1,000 in 141 s are 7 a second
    expect(most).toBeLessThanOrEqual(8)
    const asked = new Map<string, number>()
    for (const { grant: whose } of provider.requests) asked.set(whose.id, (asked.get(whose.id) ?? 0) + 1)
    expect(new Set(asked.values())).toEqual(new Set([2]))
    await leases.close()
  })

  test('that all call in the same second, after three quarters of it, are renewed eight at a time', async () => {
    const clock = fakeClock()
    const provider = countingProvider(clock, { lifeS: 1_000 })
    const { leases } = leaseRig({ clock, provider })
    const agents = Array.from({ length: 200 }, () =>
      permit({ service: billing, grant: grant({ expiresAt: T0 / 1000 + 3_600 }) }),
    )
    await Promise.all(agents.map((agent) => leases.acquire(agent, receipt)))
    clock.advance(0.8 * 940_000)
    const waiting: (() => void)[] = []
    const issueNow = provider.next
    provider.next = async (request, signal) => {
      await new Promise<void>((go) => waiting.push(go))
      return issueNow(request, signal)
    }
    for (const agent of agents) expect(leases.acquire(agent, receipt)).not.toBeInstanceOf(Promise)
    await tick()
    await tick()
    expect(waiting).toHaveLength(8)
    expect(leases.state.issuers).toMatchObject([
      { credential: 'billing', underway: 8, waiting: 192, circuit: 'closed' },
    ])
    // A call that waits goes before all of them.
    const urgent = leases.acquire(permit({ service: billing }), receipt)
    await expect.poll(() => waiting.length).toBe(9)
    waiting[8]?.()
    await urgent
    while (provider.requests.length < 401 || waiting.length < 201) {
      for (const go of waiting) go()
      await tick()
    }
    for (const go of waiting) go()
    await leases.close()
  })

  test('wait for a turn no longer than for an answer', async () => {
    const { leases, provider } = leaseRig({ timing: { issueTimeoutMs: 30 }, limits: { atOnce: 1 } })
    provider.next = (_request, signal) =>
      new Promise((_, fail) => signal.addEventListener('abort', () => fail(signal.reason)))
    const [one, two] = await Promise.all(
      [0, 1].map(() => refusal(leases.acquire(permit({ service: billing }), receipt))),
    )
    expect([one?.code, two?.code]).toEqual(['credential_unavailable', 'credential_unavailable'])
  })
})

describe('the circuit of an issuer', () => {
  const rig = () => {
    const clock = fakeClock()
    const provider = countingProvider(clock)
    const ordinary = provider.next
    provider.next = away
    const { leases, entries } = leaseRig({ clock, provider, random: () => 0 })
    const call = () => leases.acquire(permit({ service: billing }), receipt)
    return { clock, provider, leases, entries, call, heal: () => (provider.next = ordinary) }
  }

  test('opens after failures for five agents, says when to come back, lets one try, and closes when that succeeds', async () => {
    const { clock, provider, leases, entries, call, heal } = rig()
    for (let i = 0; i < 5; i += 1) await refusal(call())
    expect(provider.requests).toHaveLength(5)
    const refused = await refusal(call())
    expect(refused).toMatchObject({ code: 'credential_unavailable', retryAfterMs: 2_000 })
    expect(refused?.detail).toContain('credential billing has failed several times')
    expect(provider.requests).toHaveLength(5)
    expect(entries).toHaveLength(5) // nobody was asked, so nothing is in the log
    expect(leases.state.issuers[0]?.circuit).toBe('open')
    clock.advance(2_000)
    expect(leases.state.issuers[0]?.circuit).toBe('half_open')
    await refusal(call())
    await refusal(call())
    expect(provider.requests).toHaveLength(6) // one tried, and failed
    expect(await refusal(call())).toMatchObject({ retryAfterMs: 4_000 })
    clock.advance(4_000)
    heal()
    const [probe, other] = await Promise.all([refusal(call()), refusal(call())])
    expect(probe).toBeUndefined()
    expect(other).toMatchObject({ code: 'credential_unavailable', retryAfterMs: 1_000 })
    expect(leases.state.issuers[0]?.circuit).toBe('closed')
    expect(await refusal(call())).toBeUndefined()
  })

  test('one agent alone opens none, and an issuer that says no is not away', async () => {
    const { clock, provider, leases, call } = rig()
    const same = permit({ service: billing })
    for (let i = 0; i < 8; i += 1) {
      await refusal(leases.acquire(same, receipt))
      clock.advance(6_000)
    }
    expect(leases.state.issuers[0]?.circuit).toBe('closed')
    provider.next = () => Promise.reject(new GatewayError('credential_rejected', 'no'))
    for (let i = 0; i < 8; i += 1) await refusal(call())
    expect(leases.state.issuers[0]?.circuit).toBe('closed')
  })

  test('an issuer that asks for time gets it from everybody, but no more than a minute', async () => {
    const { clock, provider, leases, call, heal } = rig()
    provider.next = () =>
      Promise.reject(Object.assign(new GatewayError('credential_unavailable', 'busy'), { retryAfterMs: 3_600_000 }))
    await refusal(call())
    heal()
    expect(await refusal(call())).toMatchObject({ retryAfterMs: 60_000 })
    clock.advance(59_999)
    await refusal(call())
    expect(provider.requests).toHaveLength(1)
    clock.advance(1)
    expect(await refusal(call())).toBeUndefined()
    expect(leases.state.issuers[0]?.circuit).toBe('closed')
  })

  test('a failure is kept for five seconds at most, longer each time, and says how long', async () => {
    const { clock, provider, leases } = rig()
    const same = permit({ service: billing })
    const kept: number[] = []
    for (let i = 0; i < 5; i += 1) {
      await refusal(leases.acquire(same, receipt))
      const again = await refusal(leases.acquire(same, receipt))
      kept.push(again?.retryAfterMs ?? 0)
      expect(provider.requests).toHaveLength(i + 1)
      clock.advance(again?.retryAfterMs ?? 0)
    }
    expect(kept).toEqual(kept.toSorted((a, b) => a - b))
    expect(kept[0]).toBeGreaterThanOrEqual(500)
    expect(kept.at(-1)).toBeLessThanOrEqual(5_000)
  })
})

describe('a credential that stands in for another', () => {
  const rig = () => {
    const clock = fakeClock()
    const [first, spare] = [countingProvider(clock), countingProvider(clock)]
    Object.assign(first, { name: 'first', identity: 'first' })
    Object.assign(spare, { name: 'spare', identity: 'spare' })
    const made = leaseRig({
      clock,
      providers: new Map([
        ['billing', first],
        ['billing-spare', spare],
      ]),
      fallbacks: new Map([['billing', 'billing-spare']]),
    })
    return { ...made, first, spare, issueFirst: first.next }
  }

  test('serves while the issuer is away, under its own name in the log, and goes when the issuer is back', async () => {
    const { leases, clock, entries, first, spare, issueFirst } = rig()
    first.next = away
    const same = permit({ service: billing })
    const stood = await leases.acquire(same, receipt)
    expect(stood.facts).toMatchObject({ provider: 'spare', credential: 'billing-spare' })
    expect((await leases.acquire(same, receipt)).facts.credentialId).toBe(stood.facts.credentialId)
    expect(spare.requests).toHaveLength(1)
    expect(entries.map(({ kind, fields }) => [kind, fields.credential])).toEqual([
      ['lease.failed', 'billing'],
      ['lease.issued', 'billing-spare'],
    ])
    first.next = issueFirst
    clock.advance(5_000)
    expect((await leases.acquire(same, receipt)).facts).toMatchObject({ provider: 'first', credential: 'billing' })
    expect(leases.acquire(same, receipt)).not.toBeInstanceOf(Promise)
  })

  test('is asked for single-use operations too, and its credentials end with the grant', async () => {
    const { leases, first, spare, entries } = rig()
    first.next = away
    const ended = grant()
    const once = await leases.acquire(permit({ service: billing, grant: ended, singleUse: true }), receipt)
    expect(once.facts.credential).toBe('billing-spare')
    await leases.acquire(permit({ service: billing, grant: ended }), receipt)
    await leases.purge(ended)
    once[Symbol.dispose]()
    expect(spare.revoked).toHaveLength(2)
    expect(first.revoked).toEqual([])
    expect(entries.filter(({ kind }) => kind === 'lease.revoked').map(({ fields }) => fields.credential)).toEqual([
      'billing-spare',
      'billing-spare',
    ])
  })

  test.each(['credential_rejected', 'credential_too_wide', 'credential_unconfigured'] as const)(
    'is not asked when the issuer says %s',
    async (code) => {
      const { leases, first, spare } = rig()
      first.next = () => Promise.reject(new GatewayError(code, 'no'))
      expect((await refusal(leases.acquire(permit({ service: billing }), receipt)))?.code).toBe(code)
      expect(spare.requests).toEqual([])
    },
  )

  test('when both are away, the refusal is about the first', async () => {
    const { leases, first, spare } = rig()
    first.next = away
    spare.next = () => Promise.reject(new GatewayError('credential_rejected', 'the spare says no'))
    const refused = await refusal(leases.acquire(permit({ service: billing }), receipt))
    expect(refused).toMatchObject({ code: 'credential_unavailable', detail: 'The authorization server is away.' })
  })
})

describe('callers', () => {
  test('that leave end nothing: the credential is there for whoever comes next', async () => {
    const { leases, provider } = leaseRig()
    let finish: (credential: Credential) => void = () => undefined
    const ordinary = provider.next
    provider.next = () => new Promise((done) => (finish = done))
    const same = permit({ service: billing })
    const gone = leases.acquire(same, receipt) as Promise<Lease>
    gone.catch(() => undefined)
    await expect.poll(() => provider.requests.length).toBe(1)
    finish(await ordinary(provider.requests[0] as never, AbortSignal.timeout(1_000)))
    await expect.poll(() => leases.acquire(same, receipt) instanceof Promise).toBe(false)
    expect(provider.requests).toHaveLength(1)
  })

  test('that get an answer after they stopped waiting leave nothing alive: it is revoked', async () => {
    const { leases, provider, entries } = leaseRig({ timing: { issueTimeoutMs: 20 } })
    const ordinary = provider.next
    let finish: () => void = () => undefined
    provider.next = async (request, signal) => {
      await new Promise<void>((done) => (finish = done))
      return ordinary(request, signal)
    }
    expect((await refusal(leases.acquire(permit({ service: billing }), receipt)))?.code).toBe('credential_unavailable')
    finish()
    await expect.poll(() => provider.revoked).toHaveLength(1)
    expect(entries.at(-1)?.fields).toMatchObject({ reason: 'unusable', outcome: 'revoked' })
    expect(plain().secrets).toEqual([])
  })
})
