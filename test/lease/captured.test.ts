/** A placeholder is the name of a sealed value of one tenant, grant and service, until its time is over; for anybody else it names nothing. */
import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createMemoryCache } from '../../gateway/lease/cache-memory.ts'
import { Captives } from '../../gateway/lease/captured.ts'
import { Ended } from '../../gateway/lease/ended.ts'
import { isPlaceholder, standingIn } from '../../gateway/lease/placeholder.ts'
import { createSeal } from '../../gateway/lease/seal.ts'
import { SetBacks } from '../../gateway/lease/set-back.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import type { Capture, Inbound } from '../../gateway/protocol/message.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import {
  countingProvider,
  type Entry,
  type FakeClock,
  fakeClock,
  field,
  grant,
  leaseRig,
  permit,
  plain,
  receipt,
  sealKey,
  service,
} from './lease.fixture.ts'

function rig(o: { record?: () => Promise<unknown>; clock?: FakeClock } = {}) {
  const clock = o.clock ?? fakeClock()
  const entries: Entry[] = []
  const record =
    o.record ??
    (async (kind: string, grant: Grant, fields: object) => void entries.push({ kind, grant, fields: { ...fields } }))
  const cache = createMemoryCache({ clock })
  const seal = createSeal(sealKey())
  const ended = new Ended(clock)
  const setBacks = new SetBacks(clock)
  const open = () => new Captives({ cache, seal, clock, record: record as never, ended, setBacks })
  return { ended, clock, entries, cache, seal, here: open(), there: open() }
}

/** What stands for `value` after a call under this permit. */
async function capture(
  captives: Captives,
  of = permit(),
  value = `secret-${randomBytes(12).toString('hex')}`,
  ends: { expiresInS?: number; expiresAt?: number } = {},
) {
  const { leases } = leaseRig()
  const outbound = await captives.capturing(await leases.acquire(of, receipt), of).attach(plain())
  const captive = { secret: new Secret(value), look: 'ghs_', expiresAt: undefined, expiresInS: undefined, ...ends }
  const [text = ''] = await (outbound.capture as Capture).keep([captive])
  return { text, value, id: text.slice(-43) }
}

const bearer = (id: string) => ({ id, slot: { in: 'header', name: 'Authorization', prefix: 'Bearer ' } as const })

describe('a placeholder', () => {
  it('goes up as what it stands for, on every replica, and neither may come back', async () => {
    const { here, there } = rig()
    const call = permit()
    const { text, value, id } = await capture(here, call)
    expect(isPlaceholder(text)).toBe(true)
    for (const captives of [here, there]) {
      const outbound = await (await captives.lease(call, bearer(id))).attach(plain())
      expect(field(outbound, 'authorization')).toBe(`Bearer ${value}`)
      expect(outbound.secrets.map((secret) => secret.reveal())).toContain(value)
      expect(outbound.service.slots).toEqual(plain().service.slots)
    }
  })

  it('takes the place of what stood there, also where the agent may authorize itself', async () => {
    const { here } = rig()
    const call = permit()
    const { text, value, id } = await capture(here, call)
    const headers = ['Authorization', `Bearer ${text}`, 'Accept', '*/*']
    const outbound = await (await here.lease(call, bearer(id))).attach(plain({ headers }))
    expect(outbound.headers).toEqual(['Accept', '*/*', 'Authorization', `Bearer ${value}`])
  })

  it.each([
    ['another grant', (of: ReturnType<typeof grant>) => permit({ grant: { ...of, id: 'another' } })],
    ['another tenant', (of: ReturnType<typeof grant>) => permit({ grant: { ...of, tenant: 'another' } })],
    ['another lineage', (of: ReturnType<typeof grant>) => permit({ grant: { ...of, lineageHash: 'another' } })],
    ['another service', (of: ReturnType<typeof grant>) => permit({ grant: of, service: service({ name: 'another' }) })],
  ])('names nothing under %s', async (_, other) => {
    const { here, there } = rig()
    const owner = grant()
    const { id } = await capture(here, permit({ grant: owner }))
    for (const captives of [here, there]) {
      await expect(captives.lease(other(owner), bearer(id))).rejects.toMatchObject({ code: 'foreign_credential' })
    }
    await expect(here.lease(permit({ grant: owner }), bearer(id))).resolves.toBeDefined()
  })

  it.each([
    ['expires_in', { expiresInS: 60 }, 60],
    ['expires_at', { expiresAt: 0 }, 120],
    ['the grant', {}, 900],
  ])('ends with %s', async (name, ends, seconds) => {
    const { here, there, clock } = rig()
    const call = permit()
    const at = name === 'expires_at' ? { expiresAt: Math.floor(clock.nowMs() / 1000) + 120 } : ends
    const { id } = await capture(here, call, undefined, at)
    clock.advance(seconds * 1000 - 1)
    await expect(here.lease(call, bearer(id))).resolves.toBeDefined()
    clock.advance(1)
    for (const captives of [here, there]) {
      await expect(captives.lease(call, bearer(id))).rejects.toMatchObject({ code: 'foreign_credential' })
    }
  })

  it('names nothing to a replica whose clock was set back since: it would be good for longer', async () => {
    const wall = fakeClock()
    const { here, there } = rig({ clock: { ...wall, elapsedMs: () => 0 } })
    const call = permit()
    const { id } = await capture(here, call, undefined, { expiresInS: 120 })
    wall.advance(-60_000)
    await expect(here.lease(call, bearer(id)), 'it knows how long ago that was').resolves.toBeDefined()
    await expect(there.lease(call, bearer(id))).rejects.toMatchObject({ code: 'foreign_credential' })
  })

  it('is gone with its grant', async () => {
    const { here, there, cache } = rig()
    const call = permit()
    const { id } = await capture(here, call)
    await cache.purge(call.grant.id)
    here.forget(call.grant.id)
    for (const captives of [here, there]) await expect(captives.lease(call, bearer(id))).rejects.toThrow(GatewayError)
    await expect(capture(here, call)).rejects.toMatchObject({ code: 'grant_revoked' })
  })

  it('does not exist before it is on record', async () => {
    const failing = async () => Promise.reject(new GatewayError('audit_unavailable', 'the disk is full'))
    await expect(capture(rig({ record: failing }).here)).rejects.toMatchObject({ code: 'audit_unavailable' })
  })

  it('names nothing once its grant has ended, even if the store was away then and still has it', async () => {
    const { here, there, ended } = rig()
    const call = permit()
    const { id } = await capture(here, call)
    ended.add(call.grant.id)
    for (const captives of [here, there])
      await expect(captives.lease(call, bearer(id))).rejects.toMatchObject({ code: 'grant_revoked' })
  })

  it('is shown to no issuer when its grant ends, whatever the credentials of the settings are called', async () => {
    const provider = countingProvider(fakeClock())
    const cache = createMemoryCache({ clock: fakeClock() })
    const providers = new Map([
      ['billing', provider],
      ['captured', provider],
    ])
    const { leases, entries } = leaseRig({ provider, cache, providers })
    const of = permit()
    const held = permit({ grant: of.grant, service: of.endpoint.service })
    const capturing = {
      ...held,
      endpoint: { ...held.endpoint, operation: { ...held.endpoint.operation, returnsSecret: true } },
    }
    const outbound = await (await leases.acquire(capturing as never, receipt)).attach(plain())
    await outbound.capture?.keep([
      { secret: new Secret('minted'), look: '', expiresAt: undefined, expiresInS: undefined },
    ])
    await leases.purge(of.grant)
    expect(provider.revoked).toHaveLength(1)
    expect(provider.revoked).not.toContain('minted')
    const ends = entries.filter(({ kind }) => kind === 'lease.revoked')
    expect(ends.every(({ grant }) => grant === of.grant)).toBe(true)
    expect(ends.map(({ fields }) => [fields.provider, fields.outcome]).toSorted()).toEqual([
      ['captured', 'expires'],
      ['counting', 'revoked'],
    ])
  })

  it('is in the record as an id alone', async () => {
    const { here, entries } = rig()
    const { value, text } = await capture(here)
    expect(entries).toMatchObject([
      { kind: 'lease.captured', fields: { cred_id: expect.stringMatching(/^[\w-]{22}$/) } },
    ])
    for (const secret of [value, text]) expect(JSON.stringify(entries)).not.toContain(secret)
  })
})

describe('in a request', () => {
  const id = randomBytes(32).toString('base64url')
  const slots = [
    { in: 'header', name: 'x-api-key' },
    { in: 'query', name: 'key' },
    { in: 'cookie', name: 'session' },
  ] as const
  const at = (rawHeaders: string[], rawPath = '/') =>
    standingIn({ rawHeaders, rawPath } as unknown as Inbound, service({ slots: [...slots] }))

  it.each([
    [['Authorization', `Bearer klp_${id}`], '/', { in: 'header', name: 'Authorization', prefix: 'Bearer ' }],
    [['authorization', `token ghs_klp_${id}`], '/', { in: 'header', name: 'authorization', prefix: 'token ' }],
    [['Authorization', `Basic ${btoa(`me:klp_${id}`)}`], '/', { in: 'basic', username: 'me' }],
    [['X-API-Key', `sk-klp_${id}`], '/', { in: 'header', name: 'X-API-Key', prefix: '' }],
    [['Cookie', `a=b; session=klp_${id}; c=d`], '/', { in: 'cookie', name: 'session' }],
    [[], `/x?a=1&key=klp_${id}`, { in: 'query', name: 'key' }],
  ])('%s %s it is found', (headers, path, slot) => {
    expect(at(headers, path)).toEqual({ id, slot })
  })

  it.each([
    [['X-Note', `klp_${id}`], '/'],
    [['Authorization', `Bearer klp_${id}x`], '/'],
    [['Authorization', `Bearer klp_${id.slice(1)}`], '/'],
    [['Authorization', `Basic ${btoa(`klp_${id}:`)}`], '/'],
    [['Cookie', `other=klp_${id}`], '/'],
    [[], `/klp_${id}?other=klp_${id}`],
  ])('%s %s it is not', (headers, path) => {
    expect(at(headers, path)).toBeUndefined()
  })

  it('never throws, whatever an agent sends', () => {
    const text = fc.oneof(
      fc.string(),
      fc.constantFrom(`klp_${id}`, `Basic klp_${id}`, 'Basic ====', `session=klp_${id}`),
    )
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom('Authorization', 'Cookie', 'x-api-key', 'a'), text)),
        text,
        (pairs, path) => void at(pairs.flat(), `/?${path}`),
      ),
    )
  })
})
