/** A call that is read by its parts becomes the row and the terms that it becomes when it is read whole. */
import { createSecretKey } from 'node:crypto'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { type Draft, draftFrom, writeEntry } from '../../gateway/audit/canonical.ts'
import { parseEntry } from '../../gateway/audit/entries/entry.ts'
import { letterhead } from '../../gateway/audit/entries/letterhead.ts'
import { decisionDraft, outcomeDraft } from '../../gateway/audit/entries/record.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import type { Endpoint } from '../../gateway/protocol/service.ts'
import { Batch, type Gathered } from '../../gateway/records/batch.ts'
import { Calls } from '../../gateway/records/calls.ts'
import type { Database } from '../../gateway/records/database.ts'
import { decision, endpoint, grant, inbound, leaseFacts, outcome } from '../audit/log.fixture.ts'

const LOG = 'keyless.test/calls'
const TIMES = ['2026-11-22T10:00:00.000Z', '2026-11-22T10:00:00.001Z']
const paper = letterhead({
  ...{ node: 'gw-1', version: '1', boot: 'b', origin: LOG },
  hmacKey: createSecretKey(Buffer.alloc(32)),
})
const database = { dialect: 'sqlite', all: async () => [] } as unknown as Database
const maybe = <T>(of: fc.Arbitrary<T>) => fc.option(of, { nil: undefined })

/** Texts that look like what stands around them. */
const anyText = fc.oneof(
  fc.constantFrom(
    '/v1/items/42',
    '/naïve/日本/ﬁle',
    '',
    ',"seq":1,"target":{',
    '","port":1',
    '\\',
    '"',
    '\0',
    '},"gw":{',
  ),
  fc.constantFrom('/a b'.repeat(400), ',"req":"x","trace":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"'),
  fc.string({ unit: 'binary', maxLength: 20 }),
)
const grants: readonly (Grant | undefined)[] = [
  grant(),
  grant({ lineageHash: 'other', task: { id: 't', purpose: ',"path":"/x","port":1' } }),
  undefined,
]
const endpoints: readonly (Endpoint | undefined)[] = [endpoint(), undefined]
const TRACE = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'

const anyCall = fc.record({
  held: fc.constantFrom(...grants),
  path: anyText,
  query: maybe(anyText),
  place: fc.constantFrom(...endpoints),
  trace: maybe(fc.oneof(fc.constant(TRACE), anyText)),
  promptHash: maybe(fc.constant('sha256:n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg')),
  asked: fc.boolean(),
  isRefused: fc.boolean(),
  end: fc.constantFrom('none', 'served', 'failed', 'without a credential'),
  credential: fc.constantFrom('github', 'x'.repeat(600), 'a-b '.repeat(120)),
  ts: fc.constantFrom(...TIMES),
})

type Called = typeof anyCall extends fc.Arbitrary<infer C> ? C : never

function requestOf({ path, query, trace, promptHash }: Called) {
  const { trace: _none, ...untraced } = inbound({ rawPath: query === undefined ? path : `${path}?${query}` })
  return { ...untraced, ...(trace !== undefined && { trace }), ...(promptHash && { promptHash }) }
}

function entriesOf(calls: readonly Called[]): Buffer[] {
  const drafts: { draft: Draft; ts: string }[] = []
  const ends: typeof drafts = []
  for (const o of calls) {
    const call = requestOf(o)
    const said = decision({
      params: { aaa: 1, req: ',"req":"', seq: 3, target: '{}' },
      obligations: { ...decision().obligations, ...(o.asked && { log: 'full' as const }) },
    })
    const refusal = o.isRefused ? new GatewayError('policy_denied', o.path) : undefined
    const place = o.place && { ...o.place, path: o.path }
    const facts = { inbound: call, endpoint: place, grant: o.held, decision: o.place && said, refusal }
    drafts.push({ draft: decisionDraft(paper, facts), ts: o.ts })
    if (o.isRefused || o.end === 'none') continue
    const lease = o.end === 'without a credential' ? undefined : leaseFacts({ credential: o.credential })
    const error = o.end === 'failed' ? 'upstream_reset' : undefined
    const result = {
      inbound: call,
      grant: o.held,
      lease,
      outcome: outcome({ error }),
      refusal: undefined,
      durationMs: 1.26,
    }
    ends.push({ draft: outcomeDraft(paper, result), ts: o.ts })
  }
  ends.push({ draft: draftFrom({ kind: 'policy.loaded', tenant: 'default', facts: {} }), ts: TIMES[1] as string })
  return [...drafts, ...ends].map(({ draft, ts }, seq) => {
    const bytes = Buffer.alloc(65_536)
    return bytes.subarray(0, writeEntry(bytes, 0, draft, { seq, ts }))
  })
}

const plain = ({ records, chains }: Gathered) => ({
  records: records.map(({ row, terms }) => ({ row, terms: [...new Set(terms.split(' '))].sort() })),
  chains,
})

it('is the same call, whatever its members say', async () => {
  const calls = new Calls(LOG)
  await fc.assert(
    fc.asyncProperty(fc.array(anyCall, { minLength: 1, maxLength: 6 }), async (made) => {
      const [inParts, whole] = [new Batch(LOG, calls), new Batch(LOG)]
      for (const bytes of entriesOf(made)) {
        inParts.read(bytes)
        whole.add(parseEntry(bytes) as never)
      }
      expect(inParts.size).toBe(whole.size)
      expect(plain(await inParts.gathered(database))).toEqual(plain(await whole.gathered(database)))
    }),
    { numRuns: 150 },
  )
})

it('is read by its parts when it is as most calls are', () => {
  const calls = new Calls(LOG)
  const usual = { held: grants[0], place: endpoints[0], promptHash: undefined, asked: false, isRefused: false } as const
  const paths = ['/v1/items/1', '/v1/items/2'].map((path) => ({
    ...usual,
    path,
    end: 'served' as const,
    credential: 'github' as const,
  }))
  const all = paths.map((one, i) => ({ ...one, query: `page=${i}`, trace: TRACE, ts: TIMES[i] as string }))
  const [first, second, end] = entriesOf(all).map((bytes) => bytes.toString('utf8'))
  expect(calls.decided(first as string)?.row).toMatchObject({ seq: 0, path: '/v1/items/1', service: 'github' })
  expect(calls.decided(second as string)?.row).toMatchObject({
    seq: 1,
    path: '/v1/items/2',
    trace: TRACE.split('-')[1],
  })
  expect(calls.ended(end as string)?.ending).toMatchObject({ end_seq: 2, status: 200, credential: 'github' })
})
