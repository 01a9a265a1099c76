/** A leased credential that was found somewhere is known by its keyed hash, is used by nobody any more, and ends at its issuer. Requirement 104. */
import { expect, it } from 'vitest'
import { createMemoryCache } from '../../gateway/lease/cache-memory.ts'
import { createLeases } from '../../gateway/lease/leases.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import { countingProvider, type Entry, fakeClock, leaseRig, permit, receipt, sealKey } from './lease.fixture.ts'

it('is revoked where it was found to be leaked, and replaced for the next call', async () => {
  const { leases, provider, entries } = leaseRig()
  const call = permit()
  const { facts } = await leases.acquire(call, receipt)
  const [token = ''] = [(await provider.next({} as never, {} as never)).secret.reveal()]
  expect(leases.credentialId(new Secret(token))).toBe(facts.credentialId)
  const found = await leases.known(new Set([facts.credentialId]), [call.grant])
  expect(found).toHaveLength(1)
  for (const one of found) await leases.stray(one)
  expect(provider.revoked).toEqual([token])
  expect(entries.at(-1)).toMatchObject({ kind: 'lease.revoked', fields: { reason: 'leaked', outcome: 'revoked' } })
  expect((await leases.acquire(call, receipt)).facts.credentialId).not.toBe(facts.credentialId)
})

it('is known at a replica that only shares it, which takes it from all', async () => {
  const clock = fakeClock()
  const provider = countingProvider(clock)
  const entries: Entry[] = []
  const rooms = {
    ...{ clock, cache: createMemoryCache({ clock }), sealKey: sealKey(), providers: new Map([['billing', provider]]) },
    record: async (kind: string, grant: Entry['grant'], fields: Entry['fields']) =>
      void entries.push({ kind, grant, fields }),
  }
  const [here, there] = [createLeases(rooms), createLeases(rooms)]
  const call = permit()
  const { facts } = await here.acquire(call, receipt)
  const found = await there.known(new Set([facts.credentialId]), [call.grant])
  expect(found).toHaveLength(1)
  for (const one of found) await there.stray(one)
  expect(provider.revoked).toHaveLength(1)
  expect((await here.acquire(call, receipt)).facts.credentialId).not.toBe(facts.credentialId)
})

it('is nothing to a gateway that did not lend it', async () => {
  const [one, other] = [leaseRig(), leaseRig()]
  const call = permit()
  const { facts } = await one.leases.acquire(call, receipt)
  expect(await other.leases.known(new Set([facts.credentialId]), [call.grant])).toEqual([])
})
