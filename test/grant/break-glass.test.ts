/** Emergency access: who can open what, where and when. Keys are made here; the clock is moved. */
import { createSecretKey, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import {
  type BreakGlassGrants,
  type BreakGlassOptions,
  createBreakGlassGrants,
} from '../../gateway/grant/break-glass.ts'
import { draftSealed, mergeSealed, readSealed, sealersOf, signSealed } from '../../gateway/grant/break-glass-request.ts'
import { publicJwk, signJws, thumbprintOf } from '../../gateway/grant/chain/jws.ts'
import { versionAt } from '../../gateway/grant/orders/order.ts'
import { openSqliteStore } from '../../gateway/grant/store/sqlite.ts'
import type { BreakGlassRequest, SealedRequest } from '../../gateway/protocol/break-glass.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { Inbound } from '../../gateway/protocol/message.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { manualClock } from '../rig/clock.ts'
import { triage } from './grant.fixture.ts'

const newKey = (): KeyObject => generateKeyPairSync('ed25519').privateKey
const keys = { ana: newKey(), ben: newKey(), cy: newKey() }
const storeKey = createSecretKey(randomBytes(32))
const custodians = Object.entries(keys).map(([name, key]) => ({ name, key: publicJwk(key).x ?? '' }))

const stopping: (() => void)[] = []
afterEach(() => {
  for (const stop of stopping.splice(0).reverse()) stop()
})

interface Rig {
  readonly grants: BreakGlassGrants
  readonly clock: ReturnType<typeof manualClock>
  readonly path: string
  /** Another process with the same disk. */
  again(): BreakGlassGrants
}

function rig(change: Partial<BreakGlassOptions> = {}): Rig {
  const dir = mkdtempSync(join(tmpdir(), 'keyless-glass-'))
  stopping.push(() => rmSync(dir, { recursive: true, force: true }))
  const clock = manualClock()
  const path = join(dir, 'state.sqlite')
  const again = () => {
    const store = openSqliteStore({ path, clock })
    stopping.push(() => void store.close())
    return createBreakGlassGrants({
      ...{ tenant: 'default', node: 'gw-1', custodians, threshold: 2, maxTtlS: 600, store, storeKey, clock },
      authority: [{ operations: ['github:issues.*', 'github:repos.read'] }],
      agents: new Map([[triage.id, triage]]),
      knowsOperation: (pattern) => pattern.startsWith('github:'),
      limits: { concurrency: 10, queue: 10, queueTimeoutMs: 1000 },
      policySet: () => 'sha256:x',
      countsPast: () => false,
      orders: { endOf: () => undefined, closureOf: () => undefined },
      ...change,
    })
  }
  return { grants: again(), clock, path, again }
}

function request(clock: Rig['clock'], change: Partial<BreakGlassRequest> = {}): BreakGlassRequest {
  const nowS = Math.floor(clock.nowMs() / 1000)
  return {
    ...{ id: uuidv7(clock.nowMs()), tenant: 'default', who: 'dee', agent: triage.id, why: 'the store is down' },
    ...{ scope: 'github:issues.read', ttl_s: 300, not_before: nowS, not_after: nowS + 1800 },
    ...change,
  }
}

const sealedBy = (asked: BreakGlassRequest, ...names: (keyof typeof keys)[]): SealedRequest =>
  names.reduce((sealed, name) => signSealed(sealed, keys[name]), draftSealed(asked))

const opened = (grants: BreakGlassGrants, sealed: SealedRequest): { grant: Grant; handle: string } => {
  const grant = grants.propose(readSealed(sealed))
  return { grant, handle: grants.open(grant) }
}

const presenting = (token: string) => ({ tenant: 'default', presented: { scheme: 'bearer', token } }) as Inbound
const code = (cause: unknown) => (cause instanceof GatewayError ? cause.code : cause)
function refusal(work: () => unknown): unknown {
  try {
    work()
  } catch (cause) {
    return code(cause)
  }
  return 'not refused'
}

describe('who can open', () => {
  it('two different custodians can, in either order and in copies of one request', async () => {
    const { grants, clock } = rig()
    const asked = request(clock)
    const merged = mergeSealed([sealedBy(asked, 'cy'), sealedBy(asked, 'ana')])
    const { grant, handle } = opened(grants, merged)
    expect(grant).toMatchObject({
      human: { iss: 'break-glass', sub: 'dee' },
      task: { purpose: 'the store is down' },
      depth: 0,
      delegable: false,
      maxDepth: 0,
      breakGlass: { request: asked.id, custodians: ['ana', 'cy'] },
    })
    expect(await grants.authenticate(presenting(handle))).toMatchObject({ id: grant.id, agent: triage })
  })

  it.each([
    ['nobody', [] as const],
    ['one custodian', ['ana'] as const],
    ['one custodian who signs twice', ['ana', 'ana'] as const],
  ])('%s cannot', (_, names) => {
    const { grants, clock } = rig()
    expect(refusal(() => grants.propose(readSealed(sealedBy(request(clock), ...names))))).toBe('break_glass_refused')
  })

  it('copying a signature makes no second custodian', () => {
    const { grants, clock } = rig()
    const one = sealedBy(request(clock), 'ana')
    const twice = { ...one, signatures: [...one.signatures, ...one.signatures] }
    expect(refusal(() => grants.propose(readSealed(twice)))).toBe('break_glass_refused')
  })

  it('a key that is not in the settings counts for nothing, and spoils the rest', () => {
    const { grants, clock } = rig()
    const sealed = signSealed(sealedBy(request(clock), 'ana', 'ben'), newKey())
    expect(refusal(() => grants.propose(readSealed(sealed)))).toBe('break_glass_refused')
  })

  it('a signature over one request does not open another, however alike', () => {
    const { grants, clock } = rig()
    const asked = request(clock)
    const signed = sealedBy(asked, 'ana', 'ben')
    for (const change of [
      { scope: 'github:issues.*' },
      { ttl_s: 600 },
      { agent: 'x' },
      { who: 'eve' },
      { why: 'fun' },
    ]) {
      const other = { ...signed, payload: draftSealed({ ...asked, ...change }).payload }
      expect(refusal(() => grants.propose(readSealed(other)))).toBe('break_glass_refused')
    }
  })

  it('what a custodian signed for another purpose with the same key is no consent', () => {
    const { clock } = rig()
    const asked = request(clock)
    const [header = '', payload = '', signature = ''] = signJws(
      { typ: 'at+jwt', kid: thumbprintOf(keys.ana) },
      asked,
      keys.ana,
    ).split('.')
    const other = { payload, signatures: [{ protected: header, signature }] }
    expect(refusal(() => sealersOf(readSealed(other).sealed, custodians))).toBe('break_glass_refused')
  })

  it('files of different requests are not taken together', () => {
    const { clock } = rig()
    const two = [sealedBy(request(clock), 'ana'), sealedBy(request(clock), 'ben')]
    expect(refusal(() => mergeSealed(two))).toBe('instruction_invalid')
  })
})

describe('what can be opened', () => {
  it.each([
    ['more than settings allow', { scope: 'github:*' }, 'invalid_scope'],
    ['an operation that there is not', { scope: 'gitlab:issues.read' }, 'invalid_scope'],
    ['longer than settings allow', { ttl_s: 601 }, 'break_glass_refused'],
    ['for an agent that is not registered', { agent: 'spiffe://acme.test/agents/other' }, 'agent_unknown'],
    ['for another tenant', { tenant: 'other' }, 'break_glass_refused'],
    ['at another gateway', { at: ['gw-2'] }, 'break_glass_refused'],
  ])('not %s', (_, change, expected) => {
    const { grants, clock } = rig()
    const sealed = sealedBy(request(clock, change), 'ana', 'ben')
    expect(refusal(() => grants.propose(readSealed(sealed)))).toBe(expected)
  })

  it.each([
    ['a member that nobody knows', { admin: true }],
    ['no reason', { why: ' ' }],
    ['a reason that reads as something else', { why: 'fine\u202eesle gnihtemos' }],
    ['a life of more than a quarter of an hour', { ttl_s: 901 }],
    ['a window of more than an hour', { not_after: 4_000_000_000 }],
    ['a name with a line break', { who: 'ana\nben' }],
  ])('a request with %s is none', (_, change) => {
    const { clock } = rig()
    expect(refusal(() => draftSealed({ ...request(clock), ...change } as BreakGlassRequest))).toBe(
      'instruction_invalid',
    )
  })

  it('only in its time: not before, and not from its end on', () => {
    const { grants, clock } = rig()
    const nowS = Math.floor(clock.nowMs() / 1000)
    const sealed = sealedBy(request(clock, { not_before: nowS + 10, not_after: nowS + 20 }), 'ana', 'ben')
    expect(refusal(() => grants.propose(readSealed(sealed)))).toBe('break_glass_refused')
    clock.advance(10_000)
    expect(grants.propose(readSealed(sealed)).expiresAt).toBe(nowS + 310)
    clock.advance(10_000)
    expect(refusal(() => grants.propose(readSealed(sealed)))).toBe('break_glass_refused')
  })
})

describe('once', () => {
  it('a request is opened once, also by two at once, after its end, and by a process that was killed', () => {
    const { grants, clock, again } = rig()
    const sealed = sealedBy(request(clock), 'ana', 'ben')
    const [first, second] = [grants.propose(readSealed(sealed)), grants.propose(readSealed(sealed))]
    grants.open(first)
    expect(refusal(() => grants.open(second))).toBe('break_glass_refused')
    expect(refusal(() => grants.propose(readSealed(sealed)))).toBe('break_glass_refused')
    grants.end(first, 'closed')
    clock.advance(600_000)
    expect(refusal(() => grants.propose(readSealed(sealed)))).toBe('break_glass_refused')
    expect(refusal(() => again().propose(readSealed(sealed)))).toBe('break_glass_refused')
  })

  it('its grant survives a kill, with its budgets, and so does its end', async () => {
    const { grants, clock, again } = rig()
    const { grant, handle } = opened(grants, sealedBy(request(clock), 'ana', 'ben'))
    const spending = {
      grant,
      endpoint: { operation: { name: 'github:issues.read', access: 'read', sensitivity: 'internal' } },
      decision: { levels: [], obligations: { singleUse: true, ttlS: undefined } },
    } as unknown as Parameters<typeof grants.debit>[0]
    expect(grants.debit(spending)).toBeUndefined()
    const next = again()
    expect(next.living().map(({ id }) => id)).toEqual([grant.id])
    expect(await next.authenticate(presenting(handle))).toMatchObject({ id: grant.id })
    expect(refusal(() => next.debit(spending))).toBe('use_spent')
    next.end(grant, 'closed')
    expect(refusal(() => again().authenticate(presenting(handle)))).toBe('grant_revoked')
    expect(again().living()).toEqual([])
  })

  it('is the same handle at every gateway, with a grant and an end of each', async () => {
    const { grants, clock } = rig()
    const other = rig({ node: 'gw-2' })
    const sealed = sealedBy(request(clock), 'ana', 'ben')
    const [here, there] = [opened(grants, sealed), opened(other.grants, sealed)]
    expect(here.handle).toBe(there.handle)
    expect(here.grant.id).not.toBe(there.grant.id)
    grants.end(here.grant, 'closed')
    expect(refusal(() => grants.authenticate(presenting(here.handle)))).toBe('grant_revoked')
    expect(await other.grants.authenticate(presenting(there.handle))).toMatchObject({ id: there.grant.id })
  })
})

describe('its end', () => {
  it('comes with its time', () => {
    const { grants, clock } = rig()
    const { handle } = opened(grants, sealedBy(request(clock), 'ana', 'ben'))
    clock.advance(300_000)
    expect(refusal(() => grants.authenticate(presenting(handle)))).toBe('grant_expired')
  })

  it('comes with an order, of which what was signed later is free', async () => {
    let ended: GatewayError | undefined
    const { grants, clock } = rig({ orders: { endOf: () => ended, closureOf: () => undefined } })
    const { grant, handle } = opened(grants, sealedBy(request(clock), 'ana', 'ben'))
    expect(grant.issuance).toEqual([{ after: versionAt(clock.nowMs()), policySet: 'sha256:x' }])
    await grants.authenticate(presenting(handle))
    ended = new GatewayError('grant_revoked', 'Everything was revoked.')
    expect(refusal(() => grants.authenticate(presenting(handle)))).toBe('grant_revoked')
    expect(grants.isRevoked(grant)).toBe(true)
  })

  it('comes with its agent, which is registered no more', () => {
    const agents = new Map([[triage.id, triage]])
    const { grants, clock, again } = rig({ agents })
    const { handle } = opened(grants, sealedBy(request(clock), 'ana', 'ben'))
    agents.clear()
    expect(refusal(() => again().authenticate(presenting(handle)))).toBe('agent_unknown')
  })
})

it('takes no handle that is made up, and none of an ordinary grant', () => {
  const { grants } = rig()
  for (const token of [
    `bkh_${randomBytes(32).toString('base64url')}`,
    `kh_${randomBytes(32).toString('base64url')}`,
    'bkh_x',
  ])
    expect(refusal(() => grants.authenticate(presenting(token)))).toBe('grant_invalid')
})
