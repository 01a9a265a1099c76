/** Making grants: `mint` for a root grant, `delegate` for one below another. */
import { describe, expect, it } from 'vitest'
import { createPolicy, type Policy } from '../../gateway/policy/evaluation.ts'
import { loadBundle } from '../../gateway/policy/source/bundle.ts'
import type { Grant, LineageStep } from '../../gateway/protocol/grant.ts'
import type { Workload } from '../../gateway/protocol/identity.ts'
import type { Proposal } from '../../gateway/protocol/instruction.ts'
import { bundleOf, catalogueOf, grant, notesFile, policiesDir } from './policy.fixture.ts'

const catalogue = await catalogueOf(notesFile(), 'demo')
const shipped = createPolicy({ bundle: await loadBundle({ paths: [policiesDir], catalogue }), tenant: 'default' })

async function policyOf(text: string): Promise<Policy> {
  return createPolicy({ bundle: await bundleOf(catalogue, { 'a.cedar': text }), tenant: 'default' })
}

const workload: Workload = {
  id: 'spiffe://acme.test/agents/triage',
  kind: 'kubernetes',
  issuer: 'https://cluster.acme.test',
  attributes: { namespace: 'agents' },
  expiresAt: 1_700_000_900,
}

type Opening = Extract<Proposal, { kind: 'task.open' }>
type Delegation = Extract<Proposal, { kind: 'grant.delegate' }>

function opening(of: Partial<Grant> = {}, change: Partial<Opening> = {}): Opening {
  const held = grant(of)
  return { kind: 'task.open', grant: held, authority: held.authority, agent: held.agent, ttlS: 900, ...change }
}

/** The grant `depth` delegations below the human's agent. */
function below(depth: number, change: Partial<Grant> = {}, onBehalf = false): Grant {
  const steps = Array.from({ length: depth }, (_, i): LineageStep => {
    const step = { n: i + 2, type: 'ai_agent', id: `agent:${i + 1}`, grant: `g-${i + 1}` } as const
    return onBehalf ? { ...step, on_behalf: true } : step
  })
  const root = grant()
  const agent = { ...root.agent, id: depth === 0 ? root.agent.id : `agent:${depth}` }
  return grant({
    id: depth === 0 ? root.id : `g-${depth}`,
    depth,
    agent,
    lineage: [...root.lineage, ...steps],
    ancestry: Array.from({ length: depth }, (_, i) => ({ id: `g-${i}`, authority: root.authority })),
    ...change,
  })
}

/** Signed by the delegator unless `attestation` is taken away. */
function delegation(depth: number, change: Partial<Delegation> = {}): Delegation {
  const made = change.grant ?? below(depth)
  const parent = below(depth - 1)
  const base = { kind: 'grant.delegate', parent, grant: made, authority: made.authority, agent: made.agent } as const
  return { ...base, ttlS: 300, attestation: 'a.b.c', ...change }
}

const delegate = (id: string, when = '', notes = '') =>
  `@id("${id}") @owner("test") ${notes} permit (principal, action == Action::"delegate", resource)${when && ` when { ${when} }`};`

describe('the shipped policies', () => {
  it.each<[string, Partial<Grant>, number, string]>([
    ['the owner of the socket, for an hour', { human: { iss: 'local:box', sub: 'ana' } }, 3600, 'allow'],
    ['the owner of the socket, for longer', { human: { iss: 'local:box', sub: 'ana' } }, 3601, 'deny'],
    ['a verified human, and an agent that proved itself', verified({ attested: true }), 3600, 'allow'],
    ['a verified human, and an agent that was merely named', verified({}), 900, 'deny'],
    ['a verified human, for too long', verified({ attested: true }), 3601, 'deny'],
    ['an owner for an agent that proved itself', registered({ attested: true }), 900, 'allow'],
    ['an owner for an agent that proved itself, for longer', registered({ attested: true }), 901, 'deny'],
    ['an owner for an agent that was merely named', registered({}), 900, 'deny'],
    ['an owner for a proved agent of high risk', registered({ attested: true, agent: risky() }), 900, 'deny'],
  ])('let %s: %j for %i s → %s', (_, of, ttlS, effect) => {
    expect(shipped.evaluateInstruction(opening(of, { ttlS })).effect).toBe(effect)
  })

  it('let a task go on under the same terms as it was opened', () => {
    const { grant: fresh, authority, agent } = opening()
    const replace = { kind: 'grant.replace', old: grant(), grant: fresh, authority, agent, ttlS: 900 } as const
    expect(shipped.evaluateInstruction({ ...replace, reason: 'resumed' }).effect).toBe('allow')
    const strange = grant({ human: { iss: 'https://id.acme.test', sub: 'ana' } })
    expect(shipped.evaluateInstruction({ ...replace, reason: 'intent_changed', grant: strange })).toMatchObject({
      effect: 'deny',
      code: 'policy_denied',
      detail: expect.stringMatching(/^Going on with a task/),
    })
  })

  it('let a grant be delegated three times over, signed or not', () => {
    expect(shipped.evaluateInstruction(delegation(3))).toMatchObject({
      effect: 'allow',
      policyIds: ['policies/defaults#delegation-three-deep'],
      obligations: { maxDepth: 3 },
    })
    const { attestation: _, ...unsigned } = delegation(1)
    expect(shipped.evaluateInstruction(unsigned).effect).toBe('allow')
    expect(shipped.evaluateInstruction(delegation(4))).toMatchObject({
      effect: 'deny',
      code: 'delegation_refused',
      detail: expect.stringContaining('policy allows 3'),
    })
  })

  it('let everybody take authority away', () => {
    const less: Proposal[] = [
      { kind: 'grant.revoke', grant: below(2), reason: 'revoked' },
      { kind: 'task.complete', grant: grant(), reason: 'completed' },
      { kind: 'task.step_complete', grant: grant(), step: 's', reason: 'completed' },
      { kind: 'task.suspend', grant: grant(), reason: 'suspended' },
    ]
    for (const proposal of less) expect(shipped.evaluateInstruction(proposal)).toMatchObject({ effect: 'allow' })
  })
})

function verified(change: Partial<Grant>): Partial<Grant> {
  return { human: { iss: 'https://id.acme.test', sub: 'ana' }, ...change }
}

function registered(change: Partial<Grant>): Partial<Grant> {
  return { human: { iss: 'registry', sub: 'ana@acme.test' }, ...change }
}

function risky(): Grant['agent'] {
  return { ...grant().agent, riskTier: 'high' }
}

describe('what a policy can ask of a delegation', () => {
  it.each<[string, Delegation, Delegation]>([
    ['principal == Agent::"agent:1"', delegation(1), delegation(2)],
    ['context.delegator == "agent:1"', delegation(2), delegation(1)],
    ['context.delegator like "spiffe://acme.test/*"', delegation(1), delegation(2)],
    ['context.lineage_depth <= 2', delegation(2), delegation(3)],
    ['!context.on_behalf', delegation(1), without(delegation(1), 'attestation')],
    ['!context.on_behalf', delegation(2), delegation(2, { grant: below(2, {}, true) })], // an earlier hop counts
    ['context.attested', delegation(1, { grant: below(1, { attested: true }) }), delegation(1)],
    ['context.ttl_s <= 300', delegation(1), delegation(1, { ttlS: 301 })],
    ['!context.delegable', delegation(1, { grant: below(1, { delegable: false }) }), delegation(1)],
    ['context.preset == "sensitive"', delegation(1, { grant: below(1, { preset: 'sensitive' }) }), delegation(1)],
    ['context.step == "fetch"', delegation(1, { grant: below(1, { step: 'fetch' }) }), delegation(1)],
    ['context.human_iss == "local:test" && context.human == "ana"', delegation(1), strangers(delegation(1))],
    ['context.human_amr.contains("mfa")', strangers(delegation(1)), delegation(1)],
    ['context.operations == ["notes:notes.read"]', asking('notes:notes.read'), asking('notes:notes.*')],
    ['resource == Service::"notes"', asking('notes:notes.read'), asking('demo:notes.list')],
    ['context.workload_kind == "kubernetes"', delegation(1, { workload }), delegation(1)],
    ['context.workload_issuer like "https://cluster.*"', delegation(1, { workload }), delegation(1)],
    [
      'principal.hasTag("namespace") && principal.getTag("namespace") == "agents"',
      delegation(1, { workload }),
      delegation(1),
    ],
    ['context.task_id == "task-1" && context.purpose like "triage*"', delegation(1), otherTask(delegation(1))],
  ])('%s', async (condition, yes, no) => {
    const policy = await policyOf(delegate('only', `${condition}`))
    expect(policy.evaluateInstruction(one(yes)).effect).toBe('allow')
    expect(policy.evaluateInstruction(one(no))).toMatchObject({ effect: 'deny', code: 'policy_denied' })
  })

  it('a human at a hop: the root is one, and no agent in between is', async () => {
    const atRoot = await policyOf(delegate('root', 'context.human_hops.contains(0)'))
    const between = await policyOf(delegate('between', 'context.human_hops.contains(2)'))
    expect(atRoot.evaluateInstruction(one(delegation(2))).effect).toBe('allow')
    expect(between.evaluateInstruction(one(delegation(2))).effect).toBe('deny')
  })

  it('mint is another action: a permission to open tasks delegates nothing, and the other way round', async () => {
    const minting = await policyOf(
      '@id("m") @owner("test") permit (principal, action == Action::"mint", resource is Service);',
    )
    expect(minting.evaluateInstruction(opening()).effect).toBe('allow')
    expect(minting.evaluateInstruction(delegation(1)).effect).toBe('deny')
    const delegating = await policyOf(delegate('d'))
    expect(delegating.evaluateInstruction(opening()).effect).toBe('deny')
    expect(delegating.evaluateInstruction(delegation(1)).effect).toBe('allow')
  })

  it('one service of the scope that nothing permits denies all of it', async () => {
    const policy = await policyOf(delegate('n', 'resource == Service::"notes"'))
    const both = delegation(1, { authority: [{ operations: ['notes:*'] }, { operations: ['demo:*'] }] })
    expect(policy.evaluateInstruction(both)).toMatchObject({
      effect: 'deny',
      detail: expect.stringContaining('demo:*'),
    })
  })
})

describe('@max_depth', () => {
  const deep = (n: number, id = 'd') => delegate(id, '', `@max_depth("${n}")`)

  it('bounds how deep a grant may be made; the strictest of all permits counts', async () => {
    const policy = await policyOf(deep(3, 'a') + deep(1, 'b') + delegate('c'))
    expect(policy.evaluateInstruction(one(delegation(1))).effect).toBe('allow')
    expect(policy.evaluateInstruction(one(delegation(2)))).toMatchObject({
      effect: 'deny',
      code: 'delegation_refused',
      policyIds: [expect.stringMatching(/#a$/), expect.stringMatching(/#b$/), expect.stringMatching(/#c$/)],
    })
  })

  it('of 0 allows no delegation at all', async () => {
    expect((await policyOf(deep(0))).evaluateInstruction(one(delegation(1))).code).toBe('delegation_refused')
  })

  it('on mint refuses a root grant that could be delegated further, instead of cutting it', async () => {
    const policy = await policyOf(
      '@id("m") @owner("t") @max_depth("1") permit (principal, action == Action::"mint", resource);',
    )
    expect(policy.evaluateInstruction(opening({ maxDepth: 1 })).effect).toBe('allow')
    expect(policy.evaluateInstruction(opening({ maxDepth: 3, delegable: false })).effect).toBe('allow')
    expect(policy.evaluateInstruction(opening({ maxDepth: 2 }))).toMatchObject({
      code: 'delegation_refused',
      detail: expect.stringContaining('max_depth of 1'),
    })
  })

  it.each(['', '-1', '9', '1.5', 'two', ' 1'])('of %j is refused when the bundle loads', async (depth) => {
    await expect(policyOf(delegate('x', '', `@max_depth("${depth}")`))).rejects.toThrow('delegations from 0 to 8')
  })

  it('on a forbid is refused when the bundle loads', async () => {
    const text = '@id("x") @owner("t") @max_depth("1") forbid (principal, action == Action::"delegate", resource);'
    await expect(policyOf(text)).rejects.toThrow('@max_depth on permit only')
  })
})

function without(proposal: Delegation, name: 'attestation'): Delegation {
  const { [name]: _, ...rest } = proposal
  return rest
}

function strangers(proposal: Delegation): Delegation {
  return { ...proposal, grant: { ...proposal.grant, human: { iss: 'https://id', sub: 'bo', amr: ['pwd', 'mfa'] } } }
}

function otherTask(proposal: Delegation): Delegation {
  return { ...proposal, grant: { ...proposal.grant, task: { id: 'task-2', purpose: 'escalate' } } }
}

function asking(operation: string): Delegation {
  return delegation(1, { authority: [{ operations: [operation] }] })
}

/** With a scope of one service, so that one answer decides; a scope that a case chose stays. */
function one(proposal: Delegation): Delegation {
  return proposal.authority.length === 1 && proposal.authority[0]?.operations.length === 1
    ? proposal
    : { ...proposal, authority: [{ operations: ['notes:notes.read'] }] }
}
