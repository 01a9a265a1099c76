import { createSecretKey, hash } from 'node:crypto'
import canonicalize from 'canonicalize'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Draft, draftFrom, MAX_ENTRY_BYTES, writeEntry } from '../../gateway/audit/canonical.ts'
import { parseEntry } from '../../gateway/audit/entries/entry.ts'
import { letterhead, type SealPersonal } from '../../gateway/audit/entries/letterhead.ts'
import {
  type CallFacts,
  type CallResult,
  decisionDraft,
  type LeaseFacts,
  outcomeDraft,
} from '../../gateway/audit/entries/record.ts'
import type { Approved } from '../../gateway/protocol/approval.ts'
import type { LineageStep } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import { GatewayError, type ProblemCode, problems } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import { decision, endpoint, grant, inbound, leaseFacts, outcome } from './log.fixture.ts'

const hmacKey = createSecretKey(Buffer.alloc(32, 7))
const paper = letterhead({ node: 'gw-1', version: '0.1.0', boot: 'boot', origin: 'keyless.test/default', hmacKey })
const TRACE = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
const TS = '2026-11-21T23:04:05.123Z'
const paperSpace = Buffer.alloc(8 * MAX_ENTRY_BYTES)
const write = (draft: Draft, seq = 42) =>
  paperSpace.toString('utf8', 0, writeEntry(paperSpace, 0, draft, { seq, ts: TS }))
const known = { endpoint: endpoint(), grant: grant(), decision: decision(), refusal: undefined }

/** Everything a string can be: ASCII, latin1 header bytes, astral, lone surrogates, control characters. */
const anyText = fc.oneof(
  fc.string(),
  fc.string({ unit: 'binary', maxLength: 30 }),
  fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 20 }).map((units) => String.fromCharCode(...units)),
  fc.array(fc.integer({ min: 0x80, max: 0xff }), { maxLength: 20 }).map((units) => String.fromCharCode(...units)),
)
const anyNumber = fc.oneof(fc.double(), fc.integer(), fc.constantFrom(-0, 1e21, 1e-7, 2 ** 53))
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined })
const anyStep: fc.Arbitrary<LineageStep> = fc
  .record({
    n: fc.nat(),
    type: fc.constantFrom('human' as const, 'ai_agent' as const),
    id: anyText,
    grant: maybe(anyText),
    onBehalf: fc.boolean(),
  })
  .map(({ grant, onBehalf, ...step }) => ({
    ...step,
    ...(grant !== undefined && { grant }),
    ...(onBehalf && { on_behalf: true as const }),
  }))
const anyGrant = fc
  .record({
    human: fc.record(
      { iss: anyText, sub: anyText, authTime: anyNumber, amr: fc.array(anyText, { maxLength: 40 }), acr: anyText },
      { requiredKeys: ['iss', 'sub'] },
    ),
    task: fc.record({ id: anyText, purpose: anyText }),
    lineage: fc.array(anyStep, { maxLength: 50 }),
    lineageHash: anyText,
  })
  .map(grant)
const anyInbound = fc
  .record({
    tenant: anyText,
    method: anyText,
    host: anyText,
    port: anyNumber,
    rawPath: anyText,
    client: fc.record({ address: anyText, userAgent: maybe(anyText) }),
    trace: maybe(fc.oneof(fc.constant(TRACE), anyText)),
    promptHash: maybe(anyText.map((text) => `sha256:${hash('sha256', text, 'base64url')}`)),
  })
  .map((change) => inbound(change))
const anyDecision = fc
  .record({
    errors: fc.array(anyText, { maxLength: 40 }),
    policyIds: fc.array(anyText, { maxLength: 40 }),
    policySet: anyText,
    obligations: fc
      .record({
        ttlS: maybe(anyNumber),
        singleUse: fc.boolean(),
        more: fc.record(
          {
            maxDepth: fc.nat(),
            approval: fc.record({
              from: fc.array(anyText, { maxLength: 4 }),
              count: fc.nat(),
              reuseS: maybe(fc.nat()),
              fields: fc.array(anyText, { maxLength: 4 }),
            }),
            rates: fc.array(fc.record({ n: fc.nat(), perS: fc.nat() }), { maxLength: 3 }),
            readOnly: fc.constant(true as const),
            downscope: fc.constantFrom('scope' as const, 'policy' as const),
            redact: fc.array(anyText, { maxLength: 4 }),
            notify: fc.array(anyText, { maxLength: 4 }),
            log: fc.constant('full' as const),
            revoke: fc.constantFrom('grant' as const, 'task' as const),
          },
          { requiredKeys: [] },
        ),
      })
      .map(({ more, ...rest }) => ({ ...rest, ...more })),
  })
  .map(decision)
const anyRefusal = fc
  .tuple(fc.constantFrom(...(Object.keys(problems) as ProblemCode[])), anyText, maybe(anyText))
  .map(
    ([code, detail, cause]) =>
      new GatewayError(code, detail, cause === undefined ? {} : { cause: new TypeError(cause) }),
  )
const anyFacts: fc.Arbitrary<CallFacts> = fc.record({
  inbound: anyInbound,
  endpoint: maybe(anyText.map((path) => endpoint({ path }))),
  grant: maybe(anyGrant),
  decision: maybe(anyDecision),
  refusal: maybe(anyRefusal),
})
const anyResult: fc.Arbitrary<CallResult> = fc.record({
  inbound: anyInbound,
  grant: maybe(anyGrant),
  lease: maybe(fc.record({ credential: anyText, credentialId: anyText, expiresAt: anyNumber }).map(leaseFacts)),
  outcome: maybe(
    fc
      .record({
        status: fc.nat(),
        receivedBytes: fc.nat(),
        address: maybe(anyText),
        error: maybe(anyText),
        sentHash: maybe(fc.constant('hmac:c2VudA')),
        receivedHash: maybe(fc.constant('hmac:cmVjZWl2ZWQ')),
      })
      .map(outcome),
  ),
  refusal: maybe(anyRefusal),
  durationMs: fc.double({ min: 0, max: 1e9, noNaN: true }),
})

describe('entries of calls', () => {
  it('are the canonical bytes of what they say, whatever that is', () => {
    const isCanonical = (draft: Draft, seq: number) => {
      const text = write(draft, seq)
      expect(text.isWellFormed()).toBe(true)
      expect(canonicalize(JSON.parse(text))).toBe(text)
      expect(parseEntry(Buffer.from(text))?.seq).toBe(seq)
    }
    fc.assert(
      fc.property(anyFacts, fc.maxSafeNat(), (facts, seq) => isCanonical(decisionDraft(paper, facts), seq)),
      { numRuns: 300 },
    )
    fc.assert(
      fc.property(anyResult, fc.maxSafeNat(), (result, seq) => isCanonical(outcomeDraft(paper, result), seq)),
      { numRuns: 300 },
    )
  })

  it('never exceed 60 KiB, whatever agents send', () => {
    const worst = '\u0001'.repeat(70_000)
    const lineage = Array.from({ length: 60 }, (_, n) => ({ n, type: 'ai_agent' as const, id: worst, grant: worst }))
    const who = grant({
      human: { iss: worst, sub: worst },
      task: { id: worst, purpose: worst },
      lineage,
      lineageHash: worst,
    })
    const list = Array.from({ length: 60 }, () => worst)
    const raw = inbound({
      tenant: worst,
      method: worst,
      host: worst,
      rawPath: worst,
      client: { address: worst, userAgent: worst },
    })
    const refusal = new GatewayError('policy_denied', worst, { cause: new Error(worst) })
    const ruling = decision({ errors: list, policyIds: list, policySet: worst })
    const facts = { inbound: raw, endpoint: endpoint({ path: worst }), grant: who, decision: ruling, refusal }
    const lease = leaseFacts({ provider: worst, credential: worst, credentialId: worst })
    const ended = {
      inbound: raw,
      grant: who,
      lease,
      outcome: outcome({ address: worst, error: worst }),
      refusal: undefined,
      durationMs: 1,
    }
    const drafts = [
      decisionDraft(paper, facts),
      outcomeDraft(paper, ended),
      draftFrom({ kind: 'policy.loaded', tenant: worst, facts: { list, worst } }),
    ]
    for (const draft of drafts) {
      const text = write(draft, Number.MAX_SAFE_INTEGER)
      expect(Buffer.byteLength(text)).toBeLessThanOrEqual(MAX_ENTRY_BYTES)
      expect(canonicalize(JSON.parse(text))).toBe(text)
    }
  })

  it('say in place of what was cut how long it was, and its hash', () => {
    const purpose = 'x'.repeat(5000)
    const entry = JSON.parse(
      write(decisionDraft(paper, { ...known, inbound: inbound(), grant: grant({ task: { id: 't', purpose } }) })),
    )
    expect(entry.task.purpose).toMatch(/^x{1024}…\[\+3976 chars, sha256:[\w-]{43}\]$/)
  })

  it('hold both ends of a lineage that is too long', () => {
    const lineage = Array.from({ length: 100 }, (_, n) => ({ n, type: 'ai_agent' as const, id: `agent-${n}` }))
    const entry = JSON.parse(write(decisionDraft(paper, { ...known, inbound: inbound(), grant: grant({ lineage }) })))
    expect(entry.lineage).toHaveLength(33)
    expect([entry.lineage[0].n, entry.lineage[16], entry.lineage[32].n]).toEqual([0, { cut: 68 }, 99])
  })

  it('hold nothing of the query but a keyed hash that differs by tenant', () => {
    const at = (rawPath: string, tenant = 'default') => {
      const text = write(decisionDraft(paper, { ...known, inbound: inbound({ rawPath, tenant }) }))
      expect(text).not.toContain('canary')
      return JSON.parse(text).target.query_hash
    }
    expect(at('/a?token=canary-1')).toMatch(/^hmac:[\w-]{43}$/)
    expect(at('/a?token=canary-1')).toBe(at('/b?token=canary-1'))
    expect(at('/a?token=canary-1')).not.toBe(at('/a?token=canary-2'))
    expect(at('/a?token=canary-1')).not.toBe(at('/a?token=canary-1', 'another'))
    expect(at('/a')).toBeUndefined()
  })

  it('hold no path of a request that was never located beyond its query', () => {
    const text = write(
      decisionDraft(paper, { ...known, endpoint: undefined, inbound: inbound({ rawPath: '/x/../y?secret=canary' }) }),
    )
    expect(JSON.parse(text).target.path).toBe('/x/../y')
    expect(text).not.toContain('canary')
  })

  it('hold neither headers nor the grant that was presented', () => {
    const facts = { ...known, inbound: inbound() }
    expect(
      write(decisionDraft(paper, facts)) +
        write(outcomeDraft(paper, { ...facts, lease: leaseFacts(), outcome: outcome(), durationMs: 1 })),
    ).not.toContain('canary')
  })

  it('say of each call what is true of it, when calls share their decision and their credential', () => {
    const shared = { ...known, inbound: inbound(), decision: decision() }
    const refusal = new GatewayError('limit_exceeded', 'No calls are left.')
    const approved = { id: 'approval-1' } as Approved
    const verbose = { ...shared, decision: decision({ obligations: { ...decision().obligations, log: 'full' } }) }
    const said = (facts: CallFacts) => JSON.parse(write(decisionDraft(paper, facts))).decision
    for (let again = 0; again < 2; again++) {
      expect(said(shared)).toMatchObject({ effect: 'allow', policy_ids: shared.decision.policyIds })
      expect(said({ ...shared, refusal })).toMatchObject({ effect: 'deny', code: 'limit_exceeded' })
      expect(said({ ...shared, approved })).toMatchObject({ effect: 'allow', approval: 'approval-1' })
      for (const rawHeaders of [
        ['x-one', '1'],
        ['x-two', '2'],
      ])
        expect(said({ ...verbose, inbound: inbound({ rawHeaders }) }).asked.fields).toEqual([rawHeaders[0]])
    }
    const lease = leaseFacts()
    const end = (used: LeaseFacts) =>
      JSON.parse(write(outcomeDraft(paper, { ...shared, lease: used, outcome: outcome(), durationMs: 1 }))).cred.cache
    expect([end(lease), end({ ...lease, cache: 'miss' }), end(lease)]).toEqual(['hit', 'miss', 'hit'])
  })

  it('say where an unexpected error came from, and never what it said', () => {
    const cause = Object.assign(new TypeError('Invalid character in header ["Bearer canary"]'), {
      code: 'ERR_INVALID_CHAR',
    })
    const refusal = new GatewayError('internal', 'An unexpected error stopped this call.', { cause })
    const text = write(decisionDraft(paper, { ...known, inbound: inbound(), refusal }))
    expect(JSON.parse(text).decision).toMatchObject({
      effect: 'deny',
      code: 'internal',
      status: 500,
      cause: 'TypeError ERR_INVALID_CHAR',
    })
    expect(text).not.toContain('canary')
  })

  it('hold neither human nor lineage before authentication', () => {
    const refusal = new GatewayError('grant_missing', 'Present a grant.')
    const entry = JSON.parse(
      write(
        decisionDraft(paper, {
          inbound: inbound(),
          endpoint: undefined,
          grant: undefined,
          decision: undefined,
          refusal,
        }),
      ),
    )
    expect(Object.keys(entry)).toEqual([
      'client',
      'decision',
      'gw',
      'kind',
      'log',
      'req',
      'seq',
      'target',
      'tenant',
      'ts',
      'v',
    ])
  })

  it('hold the trace and the hash of the prompt that the caller gave, and the hashes of both bodies', () => {
    const of = inbound({ trace: TRACE, promptHash: 'sha256:cHJvbXB0' })
    const decided = JSON.parse(write(decisionDraft(paper, { ...known, inbound: of })))
    expect([decided.trace, decided.client.prompt_hash]).toEqual([TRACE, 'sha256:cHJvbXB0'])
    const done = outcome({ sentHash: 'hmac:up', receivedHash: 'hmac:down' })
    const ended = JSON.parse(
      write(outcomeDraft(paper, { ...known, inbound: of, lease: leaseFacts(), outcome: done, durationMs: 1 })),
    )
    expect(ended).toMatchObject({ trace: TRACE, outcome: { req_body_hash: 'hmac:up', resp_body_hash: 'hmac:down' } })
    const plain = JSON.parse(write(decisionDraft(paper, { ...known, inbound: inbound() })))
    expect([Object.hasOwn(plain, 'trace'), Object.hasOwn(plain.client, 'prompt_hash')]).toEqual([false, false])
  })

  it('hold nothing of a person but what sealing makes of it, and stay canonical', () => {
    const seal: SealPersonal = (members, human) =>
      JSON.parse(
        JSON.stringify(members)
          .replaceAll('ana', human ? 'sealed:1' : 'sealed:0')
          .replaceAll('10.1.2.3', 'sealed:2'),
      )
    const sealing = letterhead({ node: 'gw-1', version: '0.1.0', boot: 'b', origin: 'o', hmacKey, seal })
    const of = inbound({ client: { address: '10.1.2.3', userAgent: 'ana/1' } })
    const ended = { ...known, inbound: of, lease: leaseFacts(), outcome: outcome(), durationMs: 1 }
    for (const text of [
      write(decisionDraft(sealing, { ...known, inbound: of })),
      write(outcomeDraft(sealing, ended)),
    ]) {
      expect(text).not.toMatch(/ana|10\.1\.2\.3/)
      expect(text).toContain('sealed:1')
      expect(canonicalize(JSON.parse(text))).toBe(text)
    }
  })

  it('write null for a credential that never expires, and for no limit', () => {
    const lease = leaseFacts({ expiresAt: Number.POSITIVE_INFINITY })
    const entry = JSON.parse(
      write(
        outcomeDraft(paper, {
          inbound: inbound(),
          grant: grant(),
          lease,
          outcome: outcome(),
          refusal: undefined,
          durationMs: 1.26,
        }),
      ),
    )
    expect([entry.cred.expires, entry.outcome.dur_ms, entry.outcome.error]).toEqual([null, 1.3, null])
  })

  it('keep the texts of two grants and of two tenants apart', () => {
    const one = grant()
    const two = grant({ human: { iss: 'local:workstation', sub: 'bert' } })
    const subject = (facts: Partial<CallFacts>) => {
      const entry = JSON.parse(write(decisionDraft(paper, { ...known, inbound: inbound(), ...facts })))
      return `${entry.human.sub} ${entry.tenant}`
    }
    expect(subject({ grant: one })).toBe('ana default')
    expect(subject({ grant: two })).toBe('bert default')
    expect(subject({ grant: one, inbound: inbound({ tenant: 'other' }) })).toBe('ana other')
    expect(subject({ grant: one })).toBe('ana default')
  })
})

describe('what calls share', () => {
  const fresh = () =>
    letterhead({ node: 'gw-1', version: '0.1.0', boot: 'boot', origin: 'keyless.test/default', hmacKey })
  const few = { minLength: 1, maxLength: 3 }
  const calls = fc.array(fc.record({ facts: fc.nat(), grant: fc.nat(), decision: fc.nat(), result: fc.nat() }), {
    minLength: 2,
    maxLength: 8,
  })

  it('is written as if each call were the first, whatever calls came before', () => {
    const drafts = {
      facts: fc.array(anyFacts, few),
      grants: fc.array(anyGrant, few),
      decisions: fc.array(anyDecision, few),
      results: fc.array(anyResult, few),
    }
    const one = <T>(of: readonly T[], n: number): T => of[n % of.length] as T
    fc.assert(
      fc.property(fc.record(drafts), calls, ({ facts, grants, decisions, results }, made) => {
        const kept = fresh()
        for (const [seq, call] of made.entries()) {
          const [held, said] = [one(grants, call.grant), one(decisions, call.decision)]
          const decided = { ...one(facts, call.facts), grant: held, decision: said }
          const ended = { ...one(results, call.result), grant: held }
          expect(write(decisionDraft(kept, decided), seq)).toBe(write(decisionDraft(fresh(), decided), seq))
          expect(write(outcomeDraft(kept, ended), seq)).toBe(write(outcomeDraft(fresh(), ended), seq))
        }
      }),
      { numRuns: 60 },
    )
  })
})

describe('entries built from objects', () => {
  it('are canonical for any values', () => {
    fc.assert(
      fc.property(fc.dictionary(anyText, fc.anything()), (facts) => {
        const text = write(
          draftFrom({ kind: 'policy.loaded', tenant: 'default', facts: facts as Record<string, string> }),
        )
        expect(canonicalize(JSON.parse(text))).toBe(text)
      }),
    )
  })

  it('mask a secret that strays into them', () => {
    const stray = { value: new Secret('canary') } as unknown as Record<string, string>
    expect(write(draftFrom({ kind: 'lease.issued', facts: stray }))).toContain('"facts":{"value":"[secret]"}')
  })
})

it('takes request ids as they are made', () => {
  expect(JSON.stringify(uuidv7())).toMatch(/^"[0-9a-f-]{36}"$/)
})
