/** Engines outside the gateway: whatever they answer, they add no authority; what is remembered is equal in all that was sent. */
import { readFile } from 'node:fs/promises'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { createPolicy } from '../../gateway/policy/evaluation.ts'
import { type Answer, readDecision, readResult } from '../../gateway/policy/outside/answer.ts'
import { TOLD_NAMES } from '../../gateway/policy/outside/facts.ts'
import { readOpaBundle } from '../../gateway/policy/outside/opa-bundle.ts'
import { OpaThread } from '../../gateway/policy/outside/opa-thread.ts'
import { createOutside, type OutsideEngine } from '../../gateway/policy/outside/outside.ts'
import { loadBundle } from '../../gateway/policy/source/bundle.ts'
import { createLivePolicy } from '../../gateway/policy/source/live.ts'
import type { Ask } from '../../gateway/protocol/decision.ts'
import { ask, catalogueOf, grant, inbound, notesFile, permit } from './policy.fixture.ts'

const notes = await catalogueOf(notesFile())
const bundle = await loadBundle({
  paths: [{ label: 'test/a.cedar', text: permit('all', 'principal, action, resource') }],
  catalogue: notes,
})
const vectors = new URL('../vectors/opa/bundle.tar.gz', import.meta.url)
const YES: Answer = { effect: 'allow', obligations: { ttlS: undefined, singleUse: false } }
const agents = new Map([[grant().agent.id, grant().agent]])

const threads: OpaThread[] = []
afterEach(async () => {
  await Promise.all(threads.splice(0).map((thread) => thread.close()))
})

async function threadOf(entrypoint: string): Promise<OpaThread> {
  const thread = new OpaThread({ ...readOpaBundle(await readFile(vectors)), entrypoint })
  threads.push(thread)
  await thread.begin()
  return thread
}

function engine(override: Partial<OutsideEngine> = {}): OutsideEngine {
  const { ask = async () => YES, ...more } = override
  return { name: 'one', operations: undefined, facts: undefined, cacheS: 0, timeoutMs: 1_000, ask, ...more }
}

/** Policies that allow everything, beside these engines. */
function live(engines: readonly OutsideEngine[], nowMs = () => 0) {
  const make = (of: typeof bundle) => createPolicy({ bundle: of, tenant: 'default' })
  return createLivePolicy(bundle, { make, agents, nowMs, outside: createOutside(engines, nowMs) })
}

const asked = (override: Partial<Ask> = {}): Ask => ({ ...ask(notes), ...override })

describe('an answer', () => {
  it('is a yes for nothing but the boolean true', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        const told = { decision: value, allow: value }
        expect(readDecision(told, 'call').effect === 'allow').toBe(value === true)
        expect(readDecision(value, 'call').effect).not.toBe('allow')
        const isObject = typeof value === 'object' && value !== null
        if (!isObject) expect(readResult(value, 'call').effect === 'allow').toBe(value === true)
        expect(readResult(told, 'call').effect === 'allow').toBe(value === true)
      }),
    )
  })

  it('is no yes with any obligation that is not one of ours as an annotation would say it', () => {
    fc.assert(
      fc.property(fc.string(), fc.jsonValue(), (type, value) => {
        const { effect } = readDecision({ decision: true, context: { obligations: [{ type, value }] } }, 'call')
        expect(effect).toBe('none') // no random text is the name of one
      }),
    )
    for (const type of ['id', 'owner', 'review', 'revoke', 'foreign_credentials', 'approvers', '__proto__'])
      expect(readDecision({ decision: true, obligations: [{ type, value: 'human' }] }, 'call').effect).toBe('none')
    expect(readResult({ allow: true, context: { obligations: [{ type: 'x' }] } }, 'call').effect).toBe('none')
    expect(
      readDecision({ decision: true, context: { obligations: [{ type: 'redact', value: '/a' }] } }, 'grant').effect,
    ).toBe('none')
  })

  it('obliges as the annotation of the same name does', () => {
    const obligations = [
      { type: 'ttl', value: 60 },
      { type: 'single_use' },
      { type: 'approval', value: ['on-call', 'human'] },
      { type: 'approvers', value: 2 },
      { type: 'redact', value: '/items/*/email' },
    ]
    expect(readDecision({ decision: true, context: { obligations } }, 'call')).toEqual({
      effect: 'allow',
      obligations: {
        ...{ ttlS: 60, singleUse: true, redact: ['/items/*/email'] },
        approval: { from: ['human', 'on-call'], count: 2, reuseS: undefined, fields: [] },
      },
    })
  })
})

describe('a decision', () => {
  it('is never more than what Cedar says by itself, whatever engines answer', async () => {
    const answer = fc.oneof(
      fc.constant<Answer>({ effect: 'deny' }),
      fc.constant<Answer>({ effect: 'none', why: 'x' }),
      fc
        .integer({ min: 1, max: 3600 })
        .map((ttlS): Answer => ({ effect: 'allow', obligations: { ttlS, singleUse: false } })),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(answer, { maxLength: 4 }), async (answers) => {
        const policy = live(answers.map((one) => engine({ ask: async () => one })))
        const alone = policy.alone.evaluate(asked())
        const decision = await policy.evaluate(asked())
        const isYes = alone.effect === 'allow' && answers.every(({ effect }) => effect === 'allow')
        expect(decision.effect).toBe(isYes ? 'allow' : 'deny')
        const ttls = answers.flatMap((one) => (one.effect === 'allow' ? [one.obligations.ttlS ?? 0] : []))
        if (isYes && ttls.length > 0) expect(decision.obligations.ttlS).toBe(Math.min(...ttls))
        const denied = await policy.evaluate(asked({ grant: grant({ tenant: 'another' }) }))
        expect(denied.effect).toBe('deny')
      }),
      { numRuns: 50 },
    )
  })

  it('is made without waiting where no engine is for it', () => {
    expect(live([engine({ operations: ['notes:token.mint'] })]).evaluate(asked())).not.toBeInstanceOf(Promise)
    expect(live([engine()]).evaluate(asked({ grant: grant({ tenant: 'another' }) }))).not.toBeInstanceOf(Promise)
    expect(live([engine()]).evaluate(asked())).toBeInstanceOf(Promise)
  })

  it('is a no when an engine throws, or answers after its time, though it answers yes', async () => {
    const late = engine({ timeoutMs: 5, ask: () => new Promise((done) => setTimeout(done, 60, YES)) })
    const broken = engine({
      ask: () => {
        throw new Error('a secret in a text')
      },
    })
    expect(await live([late]).evaluate(asked())).toMatchObject({ effect: 'deny', code: 'policy_unavailable' })
    const decision = await live([broken]).evaluate(asked())
    expect(decision).toMatchObject({ effect: 'deny', code: 'policy_unavailable' })
    expect(JSON.stringify(decision)).not.toContain('a secret')
  })

  it('asks all engines at once', async () => {
    let under = 0
    let most = 0
    const slow = async () => {
      most = Math.max(most, ++under)
      await new Promise((done) => setTimeout(done, 5))
      under -= 1
      return YES
    }
    await live([engine({ name: 'a', ask: slow }), engine({ name: 'b', ask: slow })]).evaluate(asked())
    expect(most).toBe(2)
  })
})

describe('what is remembered', () => {
  it('answers the very same question alone, for as long as settings say, and nothing of what failed', async () => {
    const facts = new Set(TOLD_NAMES.filter((name) => !['context.now', 'context.ttl_s'].includes(name)))
    let now = 0
    let count = 0
    let answer: Answer = YES
    const ask = async () => {
      count += 1
      return answer
    }
    const policy = live([engine({ facts, cacheS: 10, ask })], () => now)
    const at = (override: Partial<Ask> = {}) => policy.evaluate(asked({ nowMs: 1_700_000_000_000, ...override }))
    await at()
    await at()
    expect(count).toBe(1)
    await at({ method: 'HEAD' })
    await at({ grant: grant({ human: { iss: 'local:test', sub: 'bo' } }) })
    await at({ sourceAddress: '10.0.0.1' })
    await at({ endpoint: notes.locate(inbound({ rawPath: '/notes/7' })) })
    expect(count).toBe(5)
    now = 10_001
    answer = { effect: 'deny' }
    expect((await at()).effect).toBe('deny')
    answer = { effect: 'none', why: 'x' }
    now = 30_000
    await at()
    answer = YES
    expect((await at()).effect).toBe('allow')
    expect(count).toBe(8)
  })

  it('is nothing where settings say nothing', async () => {
    let count = 0
    const ask = async () => {
      count += 1
      return YES
    }
    const policy = live([engine({ ask })])
    for (let n = 0; n < 3; n++) await policy.evaluate(asked({ nowMs: 1_700_000_000_000 }))
    expect(count).toBe(3)
  })
})

it('cuts what lasts once an engine no longer agrees', async () => {
  let answer: Answer = YES
  const policy = live([engine({ ask: async () => answer })])
  const cuts: string[] = []
  const question = asked()
  const stop = policy.watch({ ask: question, decision: await policy.evaluate(question) }, ({ code }) => cuts.push(code))
  answer = { effect: 'deny' }
  policy.recheck()
  await expect.poll(() => cuts).toEqual(['policy_denied'])
  stop()
})

describe('Rego in wasm', () => {
  it('is stopped when it takes too long, and answers the next question', async () => {
    const thread = await threadOf('keyless/endless')
    await expect(thread.evaluate({}, AbortSignal.timeout(50))).rejects.toThrow('ended')
    const other = await threadOf('keyless/reads')
    const read = { resource: { properties: { access: 'read' } } }
    const signal = AbortSignal.timeout(5_000)
    expect(await other.evaluate(read, signal)).toBe(true)
    expect(await other.evaluate({}, signal)).toBeUndefined()
    await expect(thread.evaluate({}, AbortSignal.timeout(50))).rejects.toThrow()
  })

  it('keeps questions apart that are asked at once', async () => {
    const thread = await threadOf('keyless/reads')
    const accesses = ['read', 'write', 'admin', 'read', 'write']
    const answers = accesses.map((access) =>
      thread.evaluate({ resource: { properties: { access } } }, AbortSignal.timeout(5_000)),
    )
    expect(await Promise.all(answers)).toEqual([true, undefined, undefined, true, undefined])
  })

  it('is not begun without its entrypoint, or with what is no bundle', async () => {
    const bytes = await readFile(vectors)
    await expect(threadOf('keyless/none')).rejects.toThrow('no entrypoint keyless/none')
    expect(() => readOpaBundle(Buffer.from('package keyless'))).toThrow('neither')
    expect(() => readOpaBundle(bytes.subarray(0, 20_000))).toThrow()
    expect(readOpaBundle(readOpaBundle(bytes).wasm)).toMatchObject({ data: undefined })
  })
})
