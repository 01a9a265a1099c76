/** Root grants from identities: who may act, for whom, and what is refused. */
import { describe, expect, it } from 'vitest'
import type { Grant } from '../../gateway/protocol/grant.ts'
import type { GrantRequest, Instruction } from '../../gateway/protocol/instruction.ts'
import { manualClock } from '../rig/clock.ts'
import {
  agentOf,
  asClient,
  asHuman,
  asWorkload,
  identities,
  newHolderKey,
  openWorld,
  orchestrator,
  requesting,
  research,
  search,
  workloadOf,
} from './delegate.fixture.ts'
import { billing, human, opening, presenting } from './grant.fixture.ts'

type Requested = Extract<Instruction, { kind: 'grant.request' }>
const scope = { scope: 'github:issues.read' }
const authorised = (changes: Partial<Requested> = {}) =>
  requesting({ subject: asHuman('ana'), actor: asWorkload(research), purpose: 'find out', request: scope, ...changes })
const autonomous = (changes: Partial<Requested> = {}) =>
  requesting({
    grantType: 'client_credentials',
    client: asClient(research),
    purpose: 'watch',
    request: scope,
    ...changes,
  })
const code = (expected: string) => expect.objectContaining({ code: expected })

describe('a human’s token with a workload’s identity', () => {
  it('makes a root grant with human, agent, task, instance and evidence', async () => {
    const { grant, handle, token } = (await openWorld().do(authorised())) ?? {}
    expect(grant).toMatchObject({
      human: { iss: 'https://id.acme.test', sub: 'ana', authTime: 1_780_000_000, amr: ['hwk'] },
      agent: { id: research.id },
      task: { id: expect.stringMatching(/^task_/), purpose: 'find out' },
      depth: 0,
      maxDepth: 3,
      delegable: true,
      instance: 'pod-1',
      attested: true,
      lineage: [{ id: 'ana' }, { id: research.id }],
    })
    expect([handle, token]).toEqual([expect.stringMatching(/^kh_/), expect.stringMatching(/^eyJ/)])
  })

  it('honours may_act as the only agents that may act (RFC 8693 §4.4)', async () => {
    const world = openWorld()
    await expect(world.do(authorised({ subject: asHuman('ana', research.id) }))).resolves.not.toBeNull()
    await expect(world.do(authorised({ subject: asHuman('ana', search.id) }))).rejects.toEqual(code('actor_invalid'))
  })

  it('is refused to a client that pairs it with somebody else’s actor token', async () => {
    const world = openWorld()
    await expect(world.do(authorised({ client: asClient(search) }))).rejects.toMatchObject({
      code: 'actor_invalid',
      detail: expect.stringContaining('orchestrators'),
    })
    await expect(world.do(authorised({ client: asClient(research) }))).resolves.not.toBeNull()
    // Registered as the orchestrator of research, and of nobody else.
    await expect(world.do(authorised({ client: asClient(orchestrator) }))).resolves.not.toBeNull()
    const other = authorised({ client: asClient(orchestrator), actor: asWorkload(search) })
    await expect(world.do(other)).rejects.toEqual(code('actor_invalid'))
  })

  it('needs somebody who acts, and takes the authenticated client for it', async () => {
    const world = openWorld()
    const { actor: _, ...alone } = authorised()
    await expect(world.do(alone)).rejects.toEqual(code('actor_invalid'))
    const issued = await world.do({ ...alone, client: asClient(search) })
    expect(issued?.grant.agent.id).toBe(search.id)
  })

  it('refuses agents that are not registered, and two at once', async () => {
    const world = openWorld()
    const rogue = asWorkload(agentOf('rogue'))
    await expect(world.do(authorised({ actor: rogue }))).rejects.toEqual(code('agent_unknown'))
    await expect(world.do(authorised({ requestedActor: search.id }))).rejects.toEqual(code('actor_invalid'))
  })

  it('refuses to be without a declared intent (requirements 119, 120)', async () => {
    const world = openWorld()
    const { purpose: _, ...silent } = authorised()
    for (const request of [silent, authorised({ purpose: '' }), { ...autonomous(), purpose: ' ' }])
      await expect(world.do(request)).rejects.toEqual(code('instruction_invalid'))
  })

  it('asks for no evidence before the intent is known, and for the human last', async () => {
    const asked: string[] = []
    const world = openWorld({
      identities: {
        ...identities,
        human: async (token) => {
          asked.push('human')
          return identities.human(token)
        },
      },
    })
    await expect(world.do(authorised({ client: asClient(search) }))).rejects.toEqual(code('actor_invalid'))
    expect(asked).toEqual([])
  })

  it('is bound to every key that was proved and may be asked for, and then has no handle', async () => {
    const { jkt } = newHolderKey()
    const cnf = { 'x5t#S256': 'c'.repeat(43) }
    const world = openWorld({ identities: { ...identities, client: async () => workloadOf(research.id, { cnf }) } })
    expect((await world.do(authorised({ jkt })))?.grant.cnf).toEqual({ jkt })
    const free = await world.do(authorised())
    expect(free?.grant.cnf).toBeUndefined()
    expect(free?.handle).toMatch(/^kh_/)
    const issued = await world.do(authorised({ jkt, request: { ...authorised().request, isCertificateBound: true } }))
    expect(issued?.grant.cnf).toEqual({ jkt, ...cnf })
    expect(issued).not.toHaveProperty('handle')
    const bare = presenting(issued?.token ?? '')
    await expect(async () => world.grants.authenticate(bare)).rejects.toEqual(code('grant_invalid'))
    const proved = { ...bare, proof: { jkt, ...cnf } }
    expect(await world.grants.authenticate(proved)).toMatchObject({ id: issued?.grant.id })
    const half = { ...bare, proof: { jkt } }
    await expect(async () => world.grants.authenticate(half)).rejects.toEqual(code('grant_invalid'))
  })

  it('ends with the certificate that it is bound to, and outlives every other evidence', async () => {
    const cnf = { 'x5t#S256': 'c'.repeat(43) }
    const clock = manualClock()
    const nowS = clock.nowMs() / 1000
    const asking = (isCertificateBound: boolean) =>
      authorised({ request: { ...authorised().request, isCertificateBound } })
    const lifeOf = async (expiresAt: number, isBound: boolean) => {
      const client = workloadOf(research.id, { cnf, expiresAt })
      const world = openWorld({ clock, identities: { ...identities, client: async () => client } })
      const issued = await world.do(asking(isBound))
      return (issued?.grant.expiresAt ?? 0) - nowS
    }
    expect(await lifeOf(nowS + 100, true)).toBe(100)
    expect(await lifeOf(nowS + 1, true)).toBe(1)
    expect(await lifeOf(nowS + 5000, true)).toBe(900)
    expect(await lifeOf(nowS + 100, false)).toBe(900)
    await expect(lifeOf(nowS, true)).rejects.toEqual(code('client_invalid')) // within the skew of its CA
  })

  it('is not bound to the certificate of the orchestrator that asked for it', async () => {
    const client = workloadOf(orchestrator.id, { cnf: { 'x5t#S256': 'c'.repeat(43) } })
    const world = openWorld({ identities: { ...identities, client: async () => client } })
    expect((await world.do(authorised()))?.grant.cnf).toBeUndefined()
    const request = { ...authorised().request, isCertificateBound: true }
    await expect(world.do(authorised({ request }))).rejects.toEqual(code('instruction_invalid'))
  })
})

describe('an agent on its own', () => {
  it('acts for its registered owner', async () => {
    const { jkt } = newHolderKey()
    const issued = await openWorld().do(autonomous({ jkt }))
    expect(issued?.grant).toMatchObject({
      human: { iss: 'registry', sub: research.owner },
      agent: { id: research.id },
      cnf: { jkt },
      attested: true,
      instance: 'pod-1',
    })
  })

  it('has to prove who it is, and brings nobody else’s token', async () => {
    const world = openWorld()
    await expect(world.do(autonomous({ client: {} }))).rejects.toEqual(code('client_invalid'))
    const confused = autonomous({ subject: asHuman('ana') })
    await expect(world.do(confused)).rejects.toEqual(code('instruction_invalid'))
  })

  it('is nobody when it is not registered', async () => {
    await expect(openWorld().do(autonomous({ client: asClient(agentOf('rogue')) }))).rejects.toEqual(
      code('agent_unknown'),
    )
  })
})

describe('a token exchange', () => {
  it('refuses subjects that give no authority', async () => {
    const world = openWorld()
    const { subject: _, ...none } = authorised()
    await expect(world.do(none)).rejects.toEqual(code('instruction_invalid'))
    await expect(world.do(authorised({ subject: asWorkload(research) }))).rejects.toEqual(code('subject_invalid'))
  })
})

describe('the table of lifetimes (requirement 102)', () => {
  const life = async (request: GrantRequest) => {
    const { grant } = await openWorld().open({ ...scope, ...request })
    return grant.expiresAt - grant.issuedAt
  }
  const needs = { 'per-prompt': { trace: 'a'.repeat(32) }, 'training-batch': { step: 'epoch-1' } } as const

  it.each([
    ['per-task', 900, 3600],
    ['per-session', 900, 900],
    ['per-prompt', 300, 900],
    ['training-batch', 900, 3600],
    ['sensitive', 60, 60],
  ] as const)('%s: %i s unless asked, at most %i s', async (preset, normal, most) => {
    const request = { preset, ...needs[preset as keyof typeof needs] }
    expect(await life(request)).toBe(normal)
    expect(await life({ ...request, ttlS: most })).toBe(most)
    await expect(life({ ...request, ttlS: most + 1 })).rejects.toEqual(code('instruction_invalid'))
  })

  it('is shortened by settings, never lengthened', async () => {
    const world = openWorld({ ttl: { defaultS: 60, maxS: 120 } })
    const { grant } = await world.open({ ...scope, preset: 'per-session' })
    expect(grant.expiresAt - grant.issuedAt).toBe(120)
    const long = openWorld({ ttl: { defaultS: 900, maxS: 7200 } })
    await expect(long.open({ ...scope, ttlS: 3601 })).rejects.toEqual(code('instruction_invalid'))
  })

  it('binds a prompt to its trace and a batch to its step', async () => {
    const world = openWorld()
    await expect(world.open({ ...scope, preset: 'per-prompt' })).rejects.toEqual(code('instruction_invalid'))
    await expect(world.open({ ...scope, preset: 'training-batch' })).rejects.toEqual(code('instruction_invalid'))
    const { grant } = await world.open({ ...scope, preset: 'per-prompt', ...needs['per-prompt'] })
    expect(grant).toMatchObject({ preset: 'per-prompt', trace: 'a'.repeat(32) })
  })

  it('makes a sensitive grant single-use, as one entry', async () => {
    const { grant } = await openWorld().open({ ...scope, preset: 'sensitive' })
    expect(grant.authority).toEqual([{ operations: ['github:issues.read'], constraints: { single_use: true } }])
    const details = ['github:a', 'github:b'].map((one) => ({ type: 'keyless_access', operations: [one] }))
    await expect(openWorld().open({ details, preset: 'sensitive' })).rejects.toEqual(code('invalid_details'))
  })

  it('refuses traces, steps, presets, depths and keys that are none', async () => {
    const bad: GrantRequest[] = [
      { trace: '0'.repeat(32) },
      { trace: 'A'.repeat(32) },
      { step: 'a/b' },
      { step: '' },
      { step: 'x'.repeat(65) },
      { preset: 'forever' as never },
      { preset: '__proto__' as never },
      { maxDepth: 4 },
      { maxDepth: -1 },
      { maxDepth: 0.5 },
      { cnf: { jkt: 'short' } },
    ]
    for (const request of bad)
      await expect(openWorld().open({ ...scope, ...request }), JSON.stringify(request)).rejects.toEqual(
        code('instruction_invalid'),
      )
  })
})

describe('a root grant over the socket', () => {
  it('may be bound to a key, may forbid delegation, and takes details beside a scope', async () => {
    const { jkt } = newHolderKey()
    const details = [{ type: 'keyless_access', operations: ['openai:*'], constraints: { max_calls: 3 } }]
    const issued = await openWorld().open({ ...scope, details, delegable: false, maxDepth: 0, cnf: { jkt } })
    expect(issued.grant).toMatchObject({
      authority: [{ operations: ['github:issues.read'] }, { operations: ['openai:*'], constraints: { max_calls: 3 } }],
      delegable: false,
      maxDepth: 0,
      cnf: { jkt },
    } satisfies Partial<Grant>)
    expect(issued).not.toHaveProperty('handle')
  })

  it('takes only registered agents', async () => {
    await expect(openWorld().do(opening({ agent: billing.id, human }))).rejects.toEqual(code('agent_unknown'))
  })
})
