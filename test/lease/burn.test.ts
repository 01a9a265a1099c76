/** A credential that an upstream repeated is used by nobody any more; and nobody can make the gateway fetch new ones for ever. */
import { describe, expect, it } from 'vitest'
import { createMemoryCache } from '../../gateway/lease/cache-memory.ts'
import { createLeases } from '../../gateway/lease/leases.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import {
  countingProvider,
  type Entry,
  fakeClock,
  field,
  grant,
  leaseRig,
  permit,
  plain,
  receipt,
  sealKey,
  unauthorized,
} from './lease.fixture.ts'

const settled = () => new Promise((resolve) => setImmediate(resolve))

describe('a credential that came back', () => {
  it('is revoked, recorded and replaced for the next call', async () => {
    const { leases, provider, entries } = leaseRig()
    const call = permit()
    const lease = await leases.acquire(call, receipt)
    expect(lease.burn(plain())).toBe('revoked')
    await settled()
    expect(provider.revoked).toHaveLength(1)
    expect(entries.at(-1)).toMatchObject({ kind: 'lease.revoked', fields: { reason: 'leaked', outcome: 'revoked' } })
    const next = await leases.acquire(call, receipt)
    expect(next.facts.credentialId).not.toBe(lease.facts.credentialId)
    expect(provider.requests).toHaveLength(2)
  })

  it('is revoked once, however many calls saw it', async () => {
    const { leases, provider } = leaseRig()
    const call = permit()
    await leases.acquire(call, receipt)
    const used = await Promise.all(Array.from({ length: 20 }, async () => leases.acquire(call, receipt)))
    for (const lease of used) lease.burn(plain())
    await settled()
    expect(provider.revoked).toHaveLength(1)
    await Promise.all(used.map(async () => leases.acquire(call, receipt)))
    expect(provider.requests).toHaveLength(2)
  })

  it('is forgotten by every replica', async () => {
    const clock = fakeClock()
    const cache = createMemoryCache({ clock })
    const provider = countingProvider(clock)
    const key = sealKey()
    const rooms = { cache, clock, sealKey: key, providers: new Map([['billing', provider]]), record: async () => {} }
    const [here, there] = [createLeases(rooms), createLeases(rooms)]
    const call = permit()
    const mine = await here.acquire(call, receipt)
    const theirs = await there.acquire(call, receipt)
    expect(theirs.facts.credentialId).toBe(mine.facts.credentialId)
    mine.burn(plain())
    await settled()
    expect((await there.acquire(call, receipt)).facts.credentialId).not.toBe(mine.facts.credentialId)
    expect(provider.revoked).toHaveLength(1)
  })

  it('takes the one along that replaced it within the call', async () => {
    const { leases, provider } = leaseRig()
    const lease = await leases.acquire(permit(), receipt)
    const request = plain()
    await lease.reissue(request, unauthorized)
    lease.burn(request)
    await settled()
    expect(provider.revoked).toHaveLength(2)
  })

  it('is not taken again from a store that was away, nor is the one before it', async () => {
    const clock = fakeClock()
    const cache = createMemoryCache({ clock })
    const { leases } = leaseRig({ cache, clock, provider: countingProvider(clock, { revocable: false }) })
    const call = permit()
    const used: string[] = []
    for (let n = 0; n < 3; n += 1) {
      const lease = await leases.acquire(call, receipt)
      used.push(lease.facts.credentialId)
      const away = () => Promise.reject(new GatewayError('store_unavailable', 'away'))
      Object.assign(cache, { set: away, burn: away, remove: away }) // the first one stays in it
      if (n < 2) lease.burn(plain())
    }
    expect(new Set(used).size).toBe(3)
    expect(await leases.acquire(call, receipt)).toMatchObject({ facts: { credentialId: used[2] } })
  })

  it('leaves the credentials of other grants alone', async () => {
    const { leases, provider } = leaseRig()
    const [one, other] = [permit(), permit({ grant: grant() })]
    const lease = await leases.acquire(one, receipt)
    const kept = await leases.acquire(other, receipt)
    lease.burn(plain())
    expect((await leases.acquire(other, receipt)).facts.credentialId).toBe(kept.facts.credentialId)
    expect(provider.requests).toHaveLength(2)
  })

  it('is only reported when it is a standing key: it stays the same until its owner changes it', async () => {
    const clock = fakeClock()
    const provider = countingProvider(clock)
    provider.next = async () => ({ secret: new Secret('standing-key-1'), expiresAt: Infinity, ephemeral: false })
    const { leases } = leaseRig({ provider, clock, providers: new Map([['billing', provider]]) })
    const call = permit()
    const lease = await leases.acquire(call, receipt)
    for (let n = 0; n < 10; n += 1) expect(lease.burn(plain())).toBe('standing')
    await settled()
    expect(provider.revoked).toEqual([])
    expect((await leases.acquire(call, receipt)).facts.cache).toBe('hit')
    expect(provider.requests).toHaveLength(1)
  })

  it('says so when its issuer cannot revoke', async () => {
    const clock = fakeClock()
    const provider = countingProvider(clock, { revocable: false })
    const entries: Entry[] = []
    const { leases } = leaseRig({
      provider,
      clock,
      providers: new Map([['billing', provider]]),
      record: async (kind, grant, fields) => void entries.push({ kind, grant, fields }),
    })
    expect((await leases.acquire(permit(), receipt)).burn(plain())).toBe('expires')
    await settled()
    expect(entries.at(-1)).toMatchObject({ kind: 'lease.revoked', fields: { reason: 'leaked', outcome: 'expires' } })
  })
})

it('does not storm an issuer: after three within a minute there is none for the rest of it', async () => {
  const { leases, provider, clock } = leaseRig()
  const call = permit()
  for (let n = 0; n < 3; n += 1) (await leases.acquire(call, receipt)).burn(plain())
  await expect(async () => leases.acquire(call, receipt)).rejects.toMatchObject({ code: 'credential_unavailable' })
  expect(provider.requests).toHaveLength(3)
  await expect(leases.acquire(permit({ grant: grant() }), receipt)).resolves.toBeDefined() // others are not concerned
  clock.advance(60_001)
  const after = await leases.acquire(call, receipt)
  expect(field(await after.attach(plain()), 'authorization')).toMatch(/^Bearer token-/)
})
