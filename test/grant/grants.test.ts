/** Tasks: what may be opened, what ending one does, single uses and heartbeats. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { lineageHash, lineageSentence, rootLineage } from '../../gateway/grant/chain/lineage.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { manualClock } from '../rig/clock.ts'
import {
  about,
  billing,
  completing,
  endTask,
  freshStore,
  grantsWith,
  human,
  opening,
  openTask,
  presenting,
  registry,
  triage,
  use,
} from './grant.fixture.ts'

const propose = async (changes: Parameters<typeof opening>[0]) => grantsWith().propose(opening(changes))

describe('opening a task', () => {
  it('proposes the complete grant before anything has happened', async () => {
    const store = freshStore()
    const grants = grantsWith({ store })
    const proposal = await grants.propose(opening({ scope: 'github:issues.read github:pulls.*', ttlS: 60 }))
    expect(proposal).toMatchObject({
      kind: 'task.open',
      agent: triage,
      ttlS: 60,
      heartbeat: false,
      authority: [{ operations: ['github:issues.read', 'github:pulls.*'] }],
      grant: {
        tenant: 'acme',
        human,
        agent: triage,
        task: { id: expect.stringMatching(/^task_[0-9a-f]{8}-[0-9a-f]{4}-7/), purpose: 'triage issue 42' },
        id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-7/),
      },
    })
    expect(await grants.list('acme')).toEqual([])
  })

  it('lets the grant live exactly as long as was asked', async () => {
    const clock = manualClock()
    const { grant } = await openTask(grantsWith({ clock }), { ttlS: 61 })
    expect(grant.expiresAt).toBe(clock.nowMs() / 1000 + 61)
  })

  it('gives every task its own grant, handle and token', async () => {
    const grants = grantsWith()
    const [one, two] = [await openTask(grants), await openTask(grants)]
    expect(one.grant.id).not.toBe(two.grant.id)
    expect(one.grant.task.id).not.toBe(two.grant.task.id)
    expect(one.handle).not.toBe(two.handle)
    expect(one.token).not.toBe(two.token)
  })

  it('refuses an agent that is not registered, naming those that are', async () => {
    await expect(propose({ agent: 'spiffe://acme.test/agents/rogue' })).rejects.toMatchObject({
      code: 'agent_unknown',
      detail: expect.stringMatching(/rogue.*registered: .*triage, .*billing/),
    })
    await expect(propose({ agent: '__proto__' })).rejects.toMatchObject({ code: 'agent_unknown' })
  })

  it('refuses operations that no service has, naming all of them', async () => {
    await expect(propose({ scope: 'github:issues.read gitlab:x slack:*' })).rejects.toMatchObject({
      code: 'invalid_scope',
      detail: expect.stringMatching(/"gitlab:x", "slack:\*"/),
    })
  })

  it('refuses a scope that is empty, misshapen or endless', async () => {
    for (const scope of [
      '',
      ' ',
      'github',
      'github:issues read:',
      '*',
      'github:issues.read  github:*',
      `github:${'a'.repeat(4096)}`,
    ]) {
      await expect(propose({ scope }), scope).rejects.toMatchObject({ code: 'invalid_scope' })
    }
  })

  it('refuses a lifetime beyond the bound with the bound, and never cuts one', async () => {
    for (const ttlS of [3601, 0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53]) {
      await expect(propose({ ttlS }), String(ttlS)).rejects.toMatchObject({
        code: 'instruction_invalid',
        detail: expect.stringContaining('1 to 3600 s'),
      })
    }
    await expect(propose({ ttlS: 3600 })).resolves.toMatchObject({ ttlS: 3600 })
    await expect(propose({ ttlS: 1 })).resolves.toMatchObject({ ttlS: 1 })
  })

  it('refuses a purpose that is empty, too long, torn or not one plain line', async () => {
    const bad = [
      '',
      '   ',
      'a'.repeat(501),
      '\ud800',
      'a\nb',
      'a\r',
      'a\u0000',
      '\u001b[31m',
      'a\u2028b',
      'abc\u202edcba',
      '\u2066x',
    ]
    for (const purpose of bad)
      await expect(propose({ purpose }), JSON.stringify(purpose)).rejects.toMatchObject({ code: 'instruction_invalid' })
    for (const purpose of ['a', 'a'.repeat(500), '😀'.repeat(500), 'Größe „prüfen“ – 5 < 6', '修复'])
      await expect(propose({ purpose }), purpose).resolves.toBeDefined()
  })

  it('does not echo more than a glimpse of what was wrong', async () => {
    const detail = await propose({ agent: 'x'.repeat(100_000) }).then(
      () => '',
      (cause: Error) => cause.message,
    )
    expect(detail.length).toBeLessThan(500)
  })
})

describe('ending a task', () => {
  it('tells the house once, at once, and never waits for it', async () => {
    const told: Grant[] = []
    const grants = grantsWith({
      onEnded(grant) {
        told.push(grant)
        return Promise.reject(new Error('the issuer is away'))
      },
    })
    const { grant } = await openTask(grants)
    await endTask(grants, grant)
    expect(told).toEqual([grant])
    await expect(async () => grants.propose(completing(grant))).rejects.toMatchObject({
      code: 'task_unknown',
      detail: expect.stringContaining('completed'),
    })
  })

  it('refuses a task that never was, belongs to another tenant or has expired', async () => {
    const clock = manualClock()
    const grants = grantsWith({ clock })
    const { grant } = await openTask(grants)
    const unknown = { code: 'task_unknown' }
    await expect(async () => grants.propose({ ...completing(grant), task: 'task_0' })).rejects.toMatchObject(unknown)
    await expect(async () => grants.propose({ ...completing(grant), tenant: 'other' })).rejects.toMatchObject(unknown)
    clock.advance(900_000)
    await expect(async () => grants.propose(completing(grant))).rejects.toMatchObject(unknown)
  })

  it('leaves other tasks alone', async () => {
    const grants = grantsWith()
    const [one, two] = [await openTask(grants), await openTask(grants)]
    await endTask(grants, one.grant)
    expect(await grants.authenticate(presenting(two.handle))).toEqual(two.grant)
    expect((await grants.list('acme')).map(({ root }) => root.id)).toEqual([two.grant.id])
  })
})

describe('a single-use operation', () => {
  it('may be used by exactly one of two that come at once', async () => {
    const grants = grantsWith()
    const { grant } = await openTask(grants)
    const both = await Promise.allSettled([0, 1].map(async () => grants.debit(use(grant, 'github:keys.create'))))
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(both.find(({ status }) => status === 'rejected')).toMatchObject({
      reason: { code: 'use_spent', detail: expect.stringContaining('github:keys.create') },
    })
  })

  it('is counted per grant and per operation, and only where policy says so', async () => {
    const grants = grantsWith()
    const [one, two] = [await openTask(grants), await openTask(grants)]
    expect(grants.debit(use(one.grant, 'github:a'))).toBeUndefined()
    expect(grants.debit(use(one.grant, 'github:b'))).toBeUndefined()
    expect(grants.debit(use(two.grant, 'github:a'))).toBeUndefined()
    expect(() => grants.debit(use(one.grant, 'github:a'))).toThrow(expect.objectContaining({ code: 'use_spent' }))
    for (let i = 0; i < 3; i++) expect(grants.debit(use(one.grant, 'github:c', false))).toBeUndefined()
  })

  it('stays spent over a restart', async () => {
    const clock = manualClock()
    const store = freshStore(clock)
    const first = grantsWith({ store, clock })
    const { grant } = await openTask(first)
    await first.debit(use(grant, 'github:a'))
    await expect(async () => grantsWith({ store, clock }).debit(use(grant, 'github:a'))).rejects.toMatchObject({
      code: 'use_spent',
    })
  })
})

describe('heartbeats', () => {
  it('keep a task that promised them alive; silence of twice the period makes it overdue', async () => {
    const clock = manualClock()
    const grants = grantsWith({ clock })
    const { grant } = await openTask(grants, { heartbeat: true })
    for (let i = 0; i < 4; i++) {
      clock.advance(29_000)
      expect(await grants.heartbeat(about(grant))).toMatchObject({
        id: grant.task.id,
        root: { id: grant.id, expiresAt: grant.expiresAt },
      })
      expect(await grants.overdue()).toEqual([])
    }
    clock.advance(30_001)
    expect((await grants.overdue()).map(({ id }) => id)).toEqual([grant.id])
  })

  it('are not missed from a task that never promised any, or that has ended', async () => {
    const clock = manualClock()
    const grants = grantsWith({ clock })
    await openTask(grants)
    const { grant } = await openTask(grants, { heartbeat: true })
    await endTask(grants, grant)
    clock.advance(600_000)
    expect(await grants.overdue()).toEqual([])
  })

  it('are refused for a task that has ended, is unknown or of another tenant', async () => {
    const grants = grantsWith()
    const { grant } = await openTask(grants, { heartbeat: true })
    await expect(grants.heartbeat(about(grant, { tenant: 'other' }))).rejects.toMatchObject({ code: 'task_unknown' })
    await expect(grants.heartbeat(about(grant, { task: 'task_x' }))).rejects.toMatchObject({ code: 'task_unknown' })
    await endTask(grants, grant)
    await expect(grants.heartbeat(about(grant))).rejects.toMatchObject({ code: 'task_unknown' })
  })

  it('never lengthen a grant', async () => {
    const clock = manualClock()
    const grants = grantsWith({ clock })
    const { grant, handle } = await openTask(grants, { heartbeat: true, ttlS: 20 })
    clock.advance(19_000)
    await grants.heartbeat(about(grant))
    clock.advance(1_000)
    await expect(async () => grants.authenticate(presenting(handle))).rejects.toMatchObject({ code: 'grant_expired' })
    await expect(grants.heartbeat(about(grant))).rejects.toMatchObject({ code: 'task_unknown' })
  })
})

describe('defaults and lists', () => {
  it('name the first agent and the period of heartbeats', () => {
    expect(grantsWith().defaults).toEqual({ agent: triage.id, heartbeatS: 15 })
    expect(grantsWith({ agents: registry() }).defaults.agent).toBeUndefined()
  })

  it('show living tasks of the tenant alone, newest first', async () => {
    const clock = manualClock()
    const grants = grantsWith({ clock })
    const one = await openTask(grants, { heartbeat: true })
    clock.advance(10)
    const two = await openTask(grants, { agent: billing.id })
    await openTask(grants, { tenant: 'other' })
    expect(await grants.list('acme')).toMatchObject([
      { root: two.grant, watched: false },
      { root: one.grant, watched: true },
    ])
  })
})

describe('lineage', () => {
  it('names the human first and the acting agent last', () => {
    expect(rootLineage(human, triage.id, 'g1')).toEqual([
      { n: 0, type: 'human', id: 'ana' },
      { n: 1, type: 'ai_agent', id: triage.id, grant: 'g1' },
    ])
  })

  it('has a hash that depends on every member and not on their order in memory', () => {
    const text = fc.string({ minLength: 1 }).filter((value) => value.isWellFormed())
    fc.assert(
      fc.property(text, text, text, text, (a, b, c, d) => {
        const same = a === c && b === d
        const step = (sub: string, agent: string) => rootLineage({ iss: 'x', sub }, agent, 'g')
        expect(lineageHash(step(a, b)) === lineageHash(step(c, d))).toBe(same)
      }),
    )
    const reordered = rootLineage(human, triage.id, 'g1').map((step) =>
      Object.fromEntries(Object.entries(step).reverse()),
    )
    expect(lineageHash(reordered as never)).toBe(lineageHash(rootLineage(human, triage.id, 'g1')))
  })

  it('reads as a sentence', async () => {
    const { grant } = await openTask(grantsWith())
    expect(lineageSentence(grant)).toBe('ana authorised spiffe://acme.test/agents/triage for task “triage issue 42”')
  })
})
