import { describe, expect, it } from 'vitest'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import { actors, placeOf, sentence } from '../../gateway/audit/entries/lineage.ts'

const target = {
  scheme: 'https',
  host: 'api.github.com',
  port: 443,
  method: 'GET',
  path: '/user',
  operation: 'github:users.read',
  service: 'github',
}
const decision = (change: Partial<Entry> = {}): Entry => ({
  v: 'ar/1',
  seq: 1,
  ts: '2026-11-21T23:04:05.123Z',
  kind: 'call.decision',
  human: { iss: 'local:workstation', sub: 'ana' },
  task: { id: 't', purpose: 'triage' },
  lineage: [
    { n: 0, type: 'human', id: 'local:workstation#ana' },
    { n: 1, type: 'ai_agent', id: 'agent:a', grant: 'g' },
  ],
  target,
  decision: { effect: 'allow' },
  ...change,
})
const ended = (outcome: Entry['outcome']): Entry => ({
  ...decision(),
  kind: 'call.outcome',
  ...(outcome && { outcome }),
})

describe('the sentence', () => {
  it.each<[string, Entry, Entry | undefined, string]>([
    [
      'an answered call',
      decision(),
      ended({ status: 200, error: null, dur_ms: 1 }),
      'ana authorised agent:a for task “triage”; agent:a called GET api.github.com/user (github:users.read): 200',
    ],
    [
      'a call that broke off',
      decision(),
      ended({ status: 200, error: 'client_left', dur_ms: 1 }),
      'ana authorised agent:a for task “triage”; agent:a called GET api.github.com/user (github:users.read): 200, client_left',
    ],
    [
      'a call under way',
      decision(),
      undefined,
      'ana authorised agent:a for task “triage”; agent:a called GET api.github.com/user (github:users.read): allowed, no outcome recorded yet',
    ],
    [
      'a refused call',
      decision({ decision: { effect: 'deny', code: 'policy_denied', status: 403 } }),
      undefined,
      'ana authorised agent:a for task “triage”; agent:a called GET api.github.com/user (github:users.read): refused with 403, policy_denied',
    ],
  ])('of %s', (_, decided, end, text) => {
    expect(sentence(decided, end)).toBe(text)
  })

  it('names every delegation, and says how many do not fit', () => {
    const lineage = [
      { n: 0, type: 'human', id: 'h' },
      { n: 1, type: 'ai_agent', id: 'a' },
      { cut: 9 },
      { n: 11, type: 'ai_agent', id: 'z' },
    ]
    expect(sentence(decision({ lineage }))).toMatch(
      /^ana authorised a for task “triage”; a delegated to \(9 more\); \(9 more\) delegated to z; z called /,
    )
    expect(actors(decision({ lineage }))).toEqual(['ana', 'a', '(9 more)', 'z'])
  })
})

it.each([
  [{}, 'GET api.github.com/user'],
  [{ port: 8443 }, 'GET api.github.com:8443/user'],
  [{ scheme: 'http', port: 80 }, 'GET http://api.github.com/user'], // cleartext is worth seeing
  [{ host: '2001:db8::1', port: 443 }, 'GET [2001:db8::1]/user'],
])('a place is written as short as it is clear: %j', (change, text) => {
  expect(placeOf({ ...target, ...change })).toBe(text)
})
