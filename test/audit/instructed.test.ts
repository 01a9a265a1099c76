/** Entries about grants and tasks: everything that gives authority, and never a token. */
import { hash } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { Enquiry, GrantRequest, Instruction, Proposal } from '../../gateway/protocol/instruction.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { decision, entriesOf, grant, openTestLog, temporaryDir, testAudit, verifyStored } from './log.fixture.ts'

let dir: string
beforeEach(async () => {
  dir = await temporaryDir()
  return () => rm(dir, { recursive: true, force: true })
})

const CANARY = 'canary-token'
const given = { id: uuidv7(), tenant: 'default' }
const human = { iss: 'https://id.acme.test', sub: 'ana', authTime: 1_794_999_000, amr: ['pwd', 'mfa'], acr: 'high' }
const client = { clientId: 'agent:lead', assertion: { type: 'jwt-bearer', token: CANARY }, dpop: CANARY } as const
const root: Grant = grant({ human, attested: true, preset: 'sensitive', trace: 'a'.repeat(32) })
const ATTESTED = ['one.att.estation', 'two.att.estation']
const child: Grant = grant({
  id: uuidv7(),
  human,
  task: root.task,
  agent: { ...root.agent, id: 'agent:child' },
  authority: [{ operations: ['github:issues.read'], constraints: { max_calls: 3 } }],
  depth: 2,
  lineage: [
    ...root.lineage,
    { n: 2, type: 'ai_agent', id: 'agent:mid', grant: 'g-mid' },
    { n: 3, type: 'ai_agent', id: 'agent:child', grant: 'g-child', on_behalf: true },
  ],
  ancestry: [
    { id: root.id, authority: root.authority },
    { id: 'g-mid', authority: root.authority },
  ],
  attestations: ATTESTED,
  parentHash: 'cGFyZW50',
  cnf: { jkt: 'dGh1bWI' },
  instance: 'pod-7',
})
const made = { grant: child, authority: child.authority, agent: child.agent, ttlS: 300 }
const opened = { grant: root, authority: root.authority, agent: root.agent, ttlS: 900 }
const workload = {
  id: 'agent:child',
  kind: 'kubernetes',
  issuer: 'https://cluster',
  instance: 'pod-7',
  attributes: { token: CANARY },
  expiresAt: 0,
} as const
const request: GrantRequest = { scope: 'github:issues.read' }
const delegate: Instruction = {
  ...given,
  kind: 'grant.delegate',
  human,
  parent: root.id,
  agent: 'agent:child',
  request,
}

async function recorded(instruction: Instruction | Enquiry, proposal: Proposal | undefined, refusal?: GatewayError) {
  const log = await openTestLog(dir)
  const event = testAudit(log).openInstruction(instruction)
  if (proposal) {
    event.proposed(proposal)
    event.decided(decision({ policyIds: ['own#p'] }))
  }
  if (refusal) await event.refused(refusal)
  else await event.commit()
  await log.close()
  const entry = (await entriesOf(dir))[1] as Entry & { grant: object; human: object }
  expect(JSON.stringify(entry)).not.toContain(CANARY)
  expect(await verifyStored(dir)).toMatchObject({ ok: true })
  return entry
}

const hashed = (text: string) => `sha256:${hash('sha256', text, 'base64url')}`

describe('what takes effect', () => {
  it('is a delegation, with its whole lineage, every attestation by its hash, and the evidence of the human', async () => {
    const entry = await recorded(delegate, {
      ...made,
      kind: 'grant.delegate',
      parent: root,
      attestation: ATTESTED[1] as string,
      narrowed: ['max_calls'],
      workload,
    })
    expect(entry).toMatchObject({
      kind: 'grant.delegated',
      human: { iss: human.iss, sub: 'ana', auth_time: human.authTime, amr: ['pwd', 'mfa'], acr: 'high' },
      lineage_hash: child.lineageHash,
      task: { ...root.task, intent_hash: hash('sha256', root.task.purpose, 'base64url') },
      decision: { effect: 'allow', policy_ids: ['own#p'] },
      grant: {
        id: child.id,
        parent: 'g-mid',
        parent_hash: 'cGFyZW50',
        depth: 2,
        max_depth: 3,
        delegable: true,
        attested: false,
        instance: 'pod-7',
        cnf: { jkt: 'dGh1bWI' },
        authority: child.authority,
      },
      facts: {
        instruction: 'grant.delegate',
        ttl_s: 300,
        delegator: root.agent.id,
        attestation: hashed('two.att.estation'),
        on_behalf: false,
        narrowed: ['max_calls'],
        workload: { id: 'agent:child', kind: 'kubernetes', issuer: 'https://cluster', instance: 'pod-7' },
      },
    })
    const [first, second, third, fourth] = child.lineage
    expect(entry.lineage).toEqual([
      first,
      second,
      { ...third, att: hashed('one.att.estation') },
      { ...fourth, att: hashed('two.att.estation') },
    ])
    expect(JSON.stringify(entry)).not.toContain('att.estation')
  })

  it('is a delegation on behalf of a holder without a key', async () => {
    const entry = await recorded(delegate, { ...made, kind: 'grant.delegate', parent: root })
    expect(entry.facts).toMatchObject({ on_behalf: true })
    expect(entry.facts).not.toHaveProperty('attestation')
  })

  it.each<[string, Instruction, Proposal, object]>([
    [
      'grant.issued',
      { ...given, kind: 'task.open', human, agent: root.agent.id, purpose: 'p', request, heartbeat: true },
      { ...opened, kind: 'task.open', heartbeat: true, workload },
      { instruction: 'task.open', ttl_s: 900, heartbeat: true, workload: { kind: 'kubernetes' } },
    ],
    [
      'grant.replaced',
      { ...given, kind: 'task.intent', by: { holder: root }, task: root.task.id, purpose: 'p', request },
      { ...opened, kind: 'grant.replace', reason: 'intent_changed', old: child },
      { instruction: 'task.intent', reason: 'intent_changed', replaces: child.id, ttl_s: 900 },
    ],
    [
      'grant.revoked',
      { ...given, kind: 'grant.revoke', token: CANARY, by: { client } },
      { kind: 'grant.revoke', grant: child, reason: 'revoked' },
      { instruction: 'grant.revoke', reason: 'revoked' },
    ],
    [
      'grant.revoked',
      { ...given, kind: 'task.complete', by: { human }, task: root.task.id, reason: 'crashed' },
      { kind: 'task.complete', grant: root, reason: 'crashed' },
      { instruction: 'task.complete', reason: 'crashed' },
    ],
    [
      'task.step_completed',
      { ...given, kind: 'task.step_complete', by: { human }, task: root.task.id, step: 'fetch' },
      { kind: 'task.step_complete', grant: root, step: 'fetch', reason: 'completed' },
      { instruction: 'task.step_complete', step: 'fetch' },
    ],
    [
      'task.suspended',
      { ...given, kind: 'task.suspend', by: { human }, task: root.task.id },
      { kind: 'task.suspend', grant: root, reason: 'suspended' },
      { instruction: 'task.suspend', reason: 'suspended' },
    ],
  ])('is %s, under the grant it is about', async (kind, instruction, proposal, facts) => {
    const entry = await recorded(instruction, proposal)
    expect(entry).toMatchObject({ kind, req: instruction.id, facts, grant: { id: proposal.grant.id } })
    expect(entry.human).toMatchObject({ sub: 'ana', auth_time: human.authTime })
    expect(entry.lineage).toHaveLength(proposal.grant.lineage.length)
    if (proposal.grant === root)
      expect(entry.grant).toMatchObject({ preset: 'sensitive', trace: 'a'.repeat(32), attested: true })
  })
})

describe('what is refused', () => {
  const no = new GatewayError('invalid_scope', 'Wider than the parent.')
  const presented = { token: CANARY, type: 'id_token' } as const

  it.each<[Instruction | Enquiry, object]>([
    [{ ...given, kind: 'unread', route: 'POST /oauth/token' }, { route: 'POST /oauth/token' }],
    [{ ...given, kind: 'grant.introspect', by: { client: {} } }, {}],
    [
      { ...given, kind: 'task.heartbeat', task: 't', by: { holder: child } },
      { task: 't', holder: child.id },
    ],
    [delegate, { agent: 'agent:child', parent: root.id, scope: 'github:issues.read' }],
    [
      {
        ...given,
        kind: 'grant.request',
        grantType: 'token-exchange',
        client: { ...client, certificates: [Buffer.from(CANARY)] },
        jkt: 'dGh1bWI',
        subject: presented,
        actor: { token: CANARY, type: 'jwt-svid' },
        requestedActor: 'agent:child',
        attestation: CANARY,
        purpose: 'p',
        request: { ttlS: 60, allowNarrowing: true, preset: 'sensitive', delegable: false, maxDepth: 1, step: 's' },
      },
      {
        grant_type: 'token-exchange',
        client_id: 'agent:lead',
        evidence: ['jwt-bearer', 'certificate', 'dpop'],
        jkt: 'dGh1bWI',
        subject: 'id_token',
        actor: 'jwt-svid',
        requested_actor: 'agent:child',
        attested: true,
        ttl_s: 60,
        allow_narrowing: true,
        preset: 'sensitive',
        delegable: false,
        max_depth: 1,
        step: 's',
      },
    ],
    [{ ...given, kind: 'grant.present', token: CANARY }, {}],
    [{ ...given, kind: 'grant.revoke', token: root.id, by: { human } }, { grant: root.id }],
    [{ ...given, kind: 'task.intent', by: { holder: child }, task: 't', purpose: 'p', request }, { holder: child.id }],
    [
      { ...given, kind: 'task.step_complete', by: { human }, task: 't', step: 's' },
      { task: 't', step: 's' },
    ],
    [
      { ...given, kind: 'task.suspend', by: { holder: child }, task: 't' },
      { task: 't', holder: child.id },
    ],
    [
      { ...given, kind: 'task.resume', by: { client }, task: 't', ttlS: 60 },
      { task: 't', ttl_s: 60 },
    ],
  ])('is told by what was asked: %j', async (instruction, facts) => {
    const entry = await recorded(instruction, undefined, no)
    expect(entry).toMatchObject({
      kind: 'grant.denied',
      decision: { effect: 'deny', code: 'invalid_scope' },
      facts: { instruction: instruction.kind, ...facts },
    })
  })

  it.each(['kh_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG', 'eyJ.eyJ.sig', 'a~b', `${uuidv7()}x`])(
    'never names a parent that is no id: %s',
    async (parent) => {
      const entry = await recorded({ ...delegate, parent } as Instruction, undefined, no)
      expect(JSON.stringify(entry)).not.toContain(parent)
    },
  )

  it('names of the details what may be done, and of everything else only that it was there', async () => {
    const details = [
      {
        type: 'keyless_access',
        operations: ['github:*', 7],
        paths: ['/a'],
        constraints: { secret: CANARY },
        x: CANARY,
      },
      'text',
      null,
      { operations: { toString: 1 }, paths: [{ toString: CANARY }] },
    ]
    const entry = await recorded({ ...delegate, request: { details } } as Instruction, undefined, no)
    expect(entry.facts?.authorization_details).toEqual([
      {
        operations: ['github:*', 'number'],
        paths: ['/a'],
        members: ['type', 'operations', 'paths', 'constraints', 'x'],
      },
      'string',
      'object',
      { paths: ['object'], members: ['operations', 'paths'] },
    ])
  })

  it('takes no more room than what was asked is worth, however much was sent', async () => {
    const entries = Array.from({ length: 64 }, (_, i) => ({ operations: [`github:op${i}.${'x'.repeat(200)}`] }))
    const request = { scope: 'y'.repeat(4096), details: entries }
    const entry = await recorded({ ...delegate, request } as Instruction, undefined, no)
    const told = entry.facts?.authorization_details as unknown[]
    expect(told.at(-1)).toBe(`${64 - (told.length - 1)} more`)
    expect(told.slice(0, -1)).toEqual(
      entries.slice(0, told.length - 1).map((one) => ({ ...one, members: ['operations'] })),
    )
    expect(JSON.stringify(entry).length).toBeLessThan(8192)
  })

  it('names the parent that came as a token, once it is known', async () => {
    const subject = { type: 'access_token', token: CANARY } as const
    const asked: Instruction = {
      ...given,
      kind: 'grant.request',
      grantType: 'token-exchange',
      client,
      subject,
      request,
    }
    const refusal = new GatewayError('invalid_scope', 'wider than its parent')
    refusal.grant = root.id
    expect(await recorded(asked, undefined, refusal)).toMatchObject({
      kind: 'grant.denied',
      facts: { parent: root.id },
    })
  })

  it('holds the lineage that it would have had, once that is known', async () => {
    const entry = await recorded(delegate, { ...made, kind: 'grant.delegate', parent: root }, no)
    expect(entry).toMatchObject({ kind: 'grant.denied', lineage_hash: child.lineageHash, grant: { id: child.id } })
    expect(entry.lineage).toHaveLength(4)
  })
})
