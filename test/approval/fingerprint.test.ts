/** Change anything of a request, and it is another one; change what asks for nothing, and it is not. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fingerprintOf, type Subject } from '../../gateway/approval/fingerprint.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { GRANT, KEY, REQUEST, subject } from './approval.fixture.ts'

const GROUPS = new Map([['on-call', ['ben', 'cleo']]])
const of = (one: Subject, groups: ReadonlyMap<string, string[]> = GROUPS) => fingerprintOf(KEY, one, groups)
const SAME = of(subject())

/** Every leaf of a value with another value in its place. Lists also lose and gain members. */
function* altered(value: unknown): Generator<unknown> {
  if (typeof value === 'string') yield* [`${value}x`, value.slice(1), `${value.slice(0, -1)}\u00e9`]
  else if (typeof value === 'number') yield* [value + 1, -value - 1]
  else if (typeof value === 'boolean') yield !value
  else if (value === null) yield* ['', 0]
  else if (Array.isArray(value)) {
    if (value.length > 0) yield value.slice(1)
    yield [...value, 'more']
    for (const [at, member] of value.entries()) for (const other of altered(member)) yield value.with(at, other)
  } else if (typeof value === 'object') {
    for (const [name, member] of Object.entries(value as object))
      for (const other of altered(member)) yield { ...value, [name]: other }
    yield { ...value, added: 1 }
  }
}

describe('the fingerprint', () => {
  it('is another one when fields that some take for one change places', () => {
    const fields = (...headers: string[]) => of(subject({ request: { headers } }))
    expect(fields('X-To', 'ana', 'X_To', 'eve')).not.toBe(fields('X_To', 'eve', 'X-To', 'ana'))
    expect(fields('X-To', 'ana', 'X-From', 'eve')).toBe(fields('x-from', 'eve', 'x-to', 'ana'))
  })

  it('is another one once others are in a group that is asked, and the same whoever is in the others', () => {
    expect(of(subject(), new Map([['on-call', ['cleo']]]))).not.toBe(SAME)
    expect(of(subject(), new Map())).not.toBe(SAME)
    expect(of(subject(), new Map([...GROUPS, ['leads', ['ben']]]))).toBe(SAME)
    expect(of(subject(), new Map([['on-call', ['cleo', 'ben']]]))).toBe(SAME)
  })

  it('is another one for every change to any part of the canonical request', () => {
    const { what } = subject()
    const all = [...altered(what)]
    expect(all.length).toBeGreaterThan(40)
    for (const other of all) {
      if (JSON.stringify(other) === JSON.stringify(what)) continue
      expect(of({ ...subject(), what: other as object }), JSON.stringify(other)).not.toBe(SAME)
    }
  })

  it.each<[string, Subject]>([
    ['method', subject({ request: { method: 'PUT' } })],
    ['scheme', subject({ request: { scheme: 'http' } })],
    ['host', subject({ request: { host: 'notes.keyless.tes' } })],
    ['port', subject({ request: { port: 444 } })],
    ['a byte of the path', subject({ request: { path: '/notes/%31?state=open' } })],
    ['a byte of the query', subject({ request: { path: '/notes/1?state=open&' } })],
    ['body', subject({ body: 'other' })],
    ['whether there is a body', subject({ body: null })],
    ['a WebSocket', subject({ request: { isUpgrade: true } })],
    ['what the client signed', subject({ request: { signed: { region: 'eu', service: 's3' } as never } })],
    ['operation', subject({ operation: 'notes:admin' })],
    ['tenant', subject({ grant: { tenant: 'other' } })],
    ['human', subject({ grant: { human: { iss: 'https://id.acme.test', sub: 'ben' } } })],
    ['issuer of the human', subject({ grant: { human: { iss: 'https://evil.test', sub: 'ana' } } })],
    ['agent', subject({ grant: { agent: { ...GRANT.agent, id: 'spiffe://acme.test/other' } } })],
    ['task', subject({ grant: { task: { ...GRANT.task, id: 'task_2' } } })],
    ['intent', subject({ grant: { task: { ...GRANT.task, purpose: 'write a note.' } } })],
    ['grant', subject({ grant: { id: '019a0000-0000-7000-8000-000000000002' } })],
    ['chain', subject({ grant: { lineage: [...GRANT.lineage, { n: 2, type: 'ai_agent', id: 'x' }] } })],
    ['groups', subject({ terms: { from: ['on-call', 'security'] } })],
    ['people', subject({ terms: { count: 2 } })],
    ['reuse', subject({ terms: { reuseS: 60 } })],
    ['fields that are named', subject({ terms: { fields: ['traceparent'] } })],
  ])('is another one for another %s', (_, other) => {
    expect(of(other)).not.toBe(SAME)
  })

  it('is another one for any field that could ask for something, added, changed, doubled or taken away', () => {
    const field = fc.stringMatching(/^[a-z][a-z-]{0,12}$/).map((name) => `x-${name}-q`)
    fc.assert(
      fc.property(field, fc.string(), (name, value) => {
        const headers = [...REQUEST.headers, name, value]
        const once = of(subject({ request: { headers } }))
        expect(once).not.toBe(SAME)
        expect(of(subject({ request: { headers: [...headers, name, value] } }))).not.toBe(once)
        expect(of(subject({ request: { headers: [...REQUEST.headers, name, `${value} `] } }))).not.toBe(once)
      }),
      { numRuns: 100 },
    )
    const { headers } = REQUEST
    for (let at = 0; at < headers.length; at += 2)
      expect(of(subject({ request: { headers: headers.toSpliced(at, 2) } }))).not.toBe(SAME)
  })

  it('does not take two fields for one, nor a name for a value', () => {
    const forms = [
      ['a', 'b', 'c', 'd'],
      ['a', 'bc', 'd', ''],
      ['a', 'b, d'],
      ['a', 'b', 'a', 'd'],
      ['a', 'd', 'a', 'b'],
    ]
    const all = forms.map((headers) => of(subject({ request: { headers } })))
    expect(new Set(all).size).toBe(forms.length)
  })

  it('is the same for another order of fields, another case of names, and what asks for nothing', () => {
    const { headers } = REQUEST
    const turned = [...headers.slice(4), ...headers.slice(0, 4)].map((text, at) => (at % 2 ? text : text.toUpperCase()))
    expect(of(subject({ request: { headers: turned } }))).toBe(SAME)
    const silent = [
      'traceparent',
      'User-Agent',
      'x-stainless-retry-count',
      'X-Amz-Date',
      'Idempotency-Key',
      'Content-Length',
    ]
    for (const name of silent) {
      const more = [...headers, name, 'v']
      expect(of(subject({ request: { headers: more } })), name).toBe(SAME)
      const fields = [name.toLowerCase()]
      const named = of(subject({ request: { headers: more }, terms: { fields } }))
      expect(named, name).not.toBe(of(subject({ request: { headers }, terms: { fields } })))
    }
  })

  it('is the same for a root grant that was renewed or resumed, and another one for any other grant', () => {
    const renewed: Partial<Grant> = {
      id: '019a0000-0000-7000-8000-00000000000f',
      succession: { origin: GRANT.id, levels: [] },
    }
    expect(of(subject({ grant: renewed }))).toBe(SAME)
    expect(of(subject({ grant: { ...renewed, succession: { origin: 'other', levels: [] } } }))).not.toBe(SAME)
  })

  it('survives texts that are no Unicode, and keeps them apart', () => {
    const purposes = ['\ud800', '\udfff', '\ufffd', '\\ud800']
    const all = purposes.map((purpose) => of(subject({ grant: { task: { id: 'task_1', purpose } } })))
    for (const one of all) expect(one).toMatch(/^hmac:[\w-]{43}$/)
    expect(new Set(all).size).toBe(purposes.length)
  })
})
