/** What the log says of a decision: only what it has whole. */
import { describe, expect, it } from 'vitest'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import { Recording } from '../../gateway/cli/policy/recording.ts'

const CUT = `abc…[+9 chars, sha256:${'x'.repeat(43)}]`
const SEALED = `sealed:${'k'.repeat(16)}:${'x'.repeat(43)}`

function entry(kind: string, more: object): Entry {
  return {
    ...{ v: 'ar/1', seq: 7, ts: '2026-11-23T03:30:00.500Z', kind, req: 'req-1', tenant: 'default' },
    human: { iss: 'local:laptop', sub: 'ana' },
    task: { id: 'task-1', purpose: 'triage' },
    lineage: [
      { n: 0, type: 'human', id: 'ana' },
      { n: 1, type: 'ai_agent', id: 'agent:1', grant: 'g-1' },
    ],
    ...more,
  } as Entry
}

const MADE = entry('grant.issued', {
  grant: {
    ...{
      id: 'g-1',
      depth: 0,
      max_depth: 2,
      delegable: true,
      attested: false,
      issued: 1_700_000_000,
      expires: 1_700_000_900,
    },
    agent: { id: 'agent:1', owner: 'ana', purpose: 'triage', risk_tier: 'low' },
    authority: [{ type: 'keyless_access', operations: ['notes:*'] }],
  },
  facts: { instruction: 'task.open', ttl_s: 900 },
  decision: { effect: 'allow', policy_set: 'sha256:x', policy_ids: ['p#a'] },
})

function called(more: object = {}, target: object = {}): Entry {
  return entry('call.decision', {
    client: { ip: '10.1.2.3', mode: 'forward' },
    target: {
      ...{ scheme: 'https', host: 'notes.test', port: 443, method: 'GET', path: '/notes/7' },
      ...{ service: 'notes', operation: 'notes:notes.read', ...target },
    },
    decision: { effect: 'allow', policy_set: 'sha256:x', policy_ids: ['p#a'] },
    ...more,
  })
}

function read(...entries: Entry[]) {
  const recording = new Recording()
  return entries.map((one) => recording.read(one)).at(-1)
}

describe('a recorded call', () => {
  it('has what the log says of it, of its grant and of who stands behind it', () => {
    const recorded = read(MADE, called())
    expect(recorded).toMatchObject({ kind: 'call', agent: 'agent:1', asked: ['notes:notes.read'], effect: 'allow' })
    expect(Object.fromEntries(recorded?.facts ?? [])).toMatchObject({
      principal: 'agent:1',
      'principal.risk_tier': 'low',
      'context.human': 'ana',
      'context.lineage_depth': 0,
      'context.attested': false,
      'context.hour_utc': 3,
      'context.weekday_utc': 1,
      'context.source_ip': '10.1.2.3',
      'context.proof': ['bearer'],
    })
  })

  it('has the labels of its agent and whether it was an emergency, from entries that say so', () => {
    const { grant } = MADE as unknown as { grant: { agent: object } }
    const told = entry('grant.issued', {
      ...MADE,
      grant: { ...grant, agent: { ...grant.agent, labels: ['finance'] }, break_glass: false },
    })
    expect(Object.fromEntries(read(told, called())?.facts ?? [])).toMatchObject({
      'principal.labels': ['finance'],
      'context.break_glass': false,
    })
    const { facts } = read(MADE, called()) ?? { facts: new Map() }
    for (const name of ['principal.labels', 'context.break_glass']) expect(facts.has(name), name).toBe(false)
  })

  it('knows that emergency access was one', () => {
    const { grant } = MADE as unknown as { grant: object }
    const opened = entry('breakglass.opened', { grant: { ...grant, break_glass: true } })
    expect(read(opened)).toBeUndefined()
    expect(read(opened, called())?.facts.get('context.break_glass')).toBe(true)
  })

  it('takes no labels of which one was cut', () => {
    const { grant } = MADE as unknown as { grant: { agent: object } }
    const cut = entry('grant.issued', { ...MADE, grant: { ...grant, agent: { ...grant.agent, labels: ['a', CUT] } } })
    expect(read(cut, called())?.facts.has('principal.labels')).toBe(false)
  })

  it('knows nothing of a grant whose making is not in the log', () => {
    const { facts } = read(called()) ?? { facts: new Map() }
    for (const name of ['principal.risk_tier', 'principal.owner', 'context.attested', 'context.ttl_s', 'context.proof'])
      expect(facts.has(name), name).toBe(false)
  })

  it('takes nothing that was cut or is sealed', () => {
    const changes = {
      human: { iss: 'local:laptop', sub: SEALED },
      task: { id: 'task-1', purpose: CUT },
      client: { ip: SEALED, mode: 'forward' },
    }
    const recorded = read(MADE, called(changes, { path: CUT }))
    for (const name of ['context.human', 'context.purpose', 'context.source_ip', 'resource.path'])
      expect(recorded?.facts.has(name), name).toBe(false)
    expect(recorded?.place).toBeUndefined()
  })

  it('knows the plan of its task, and more of the request where a policy had it written down', () => {
    const planned = { ...MADE, task: { id: 'task-1', purpose: 'triage', plan: ['notes:notes.*'] } } as Entry
    const asked = { fields: [], protocol: 'h2', params: { amount: 7, tags: ['a'] } }
    const decision = { effect: 'allow', policy_set: 'sha256:x', policy_ids: ['p#a'], asked }
    expect(Object.fromEntries(read(planned, called({ decision }))?.facts ?? [])).toMatchObject({
      'context.has_plan': true,
      'context.on_plan': true,
      'context.websocket': false,
      'context.params': { amount: 7, tags: ['a'] },
    })
    const cut = { ...decision, asked: { ...asked, params: { note: CUT } } }
    expect(read(planned, called({ decision: cut }))?.facts.has('context.params')).toBe(false)
    const unplanned = read(MADE, called())
    expect(unplanned?.facts.get('context.has_plan')).toBe(false)
    expect(unplanned?.facts.has('context.params')).toBe(false)
  })

  it('knows no depth where steps of the lineage were cut out', () => {
    const lineage = [
      { n: 0, type: 'human', id: 'ana' },
      { cut: 3 },
      { n: 5, type: 'ai_agent', id: 'agent:1', grant: 'g-1' },
    ]
    const { facts } = read(MADE, called({ lineage })) ?? { facts: new Map() }
    for (const name of ['context.lineage_depth', 'context.human_hops', 'context.on_behalf', 'context.lineage'])
      expect(facts.has(name), name).toBe(false)
  })
})

describe('what policy said', () => {
  const denied = (code: string, ids: readonly string[] = []) =>
    called({ decision: { effect: 'deny', code, policy_set: 'sha256:x', policy_ids: ids } })
  it.each([
    ['deny', denied('policy_denied')],
    ['none', denied('scope_exceeded')],
    ['none', called({ decision: { effect: 'deny', code: 'grant_expired' } })],
    // Policy had said yes: something behind it said no.
    ['allow', denied('budget_exhausted', ['p#a'])],
    ['allow', denied('approval_denied', ['p#a'])],
    ['deny', denied('host_unmanaged', ['p#a'])],
  ])('is read as %s', (effect, one) => {
    expect(read(MADE, one)?.effect).toBe(effect)
  })

  it('is not read where a grant that is not in the log may have refused it', () => {
    expect(read(denied('host_unmanaged'))?.effect).toBe('unread')
    expect(read(MADE, denied('host_unmanaged'))?.effect).toBe('deny')
  })
})

it('a grant is decided on by the time that it says it was issued at', () => {
  const recorded = read(MADE)
  expect(recorded).toMatchObject({ kind: 'mint', asked: ['notes:*'], maxDepth: 2, effect: 'allow' })
  expect(recorded?.facts.get('context.now')).toBe(1_700_000_000)
  expect(recorded?.facts.get('context.ttl_s')).toBe(900)
})
