import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readAnnotations } from '../../gateway/policy/annotation.ts'
import { combine, NO_OBLIGATIONS } from '../../gateway/policy/obligation.ts'
import { DOWNSCOPES, type Obligations } from '../../gateway/protocol/decision.ts'

const some = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined, freq: 2 })
const names = (...all: string[]) => fc.subarray(all, { minLength: 1 }).map((list) => list.join(','))
const seconds = fc.integer({ min: 1, max: 3600 }).map(String)
const obliging = fc
  .record({
    ttl: some(seconds),
    single_use: some(fc.constant('true')),
    max_depth: some(fc.nat(8).map(String)),
    foreign_credentials: some(fc.constantFrom('log', 'refuse')),
    approval: some(names('human', 'on-call', 'security')),
    approvers: some(fc.integer({ min: 1, max: 10 }).map(String)),
    approval_ttl: some(seconds),
    fingerprint: some(names('x-account', 'if-match', 'accept')),
    rate: some(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 })).map((rate) => rate.join('/'))),
    read_only: some(fc.constant('true')),
    downscope: some(fc.constantFrom(...DOWNSCOPES)),
    redact: some(names('/a', '/b/*', '/c')),
    notify: some(names('security', 'owners')),
    log: some(fc.constant('full')),
  })
  .map(({ approvers, approval_ttl, fingerprint, ...rest }) => ({
    ...rest,
    ...(rest.approval !== undefined && { approvers, approval_ttl, fingerprint }),
  }))
  .map((written) => obligationsOf(written, 'permit'))
const revoking = fc.constantFrom('grant', 'task', undefined).map((revoke) => obligationsOf({ revoke }, 'forbid'))
const anyObligations = fc.oneof({ weight: 5, arbitrary: obliging }, { weight: 1, arbitrary: revoking })
const several = fc.array(anyObligations, { maxLength: 6 })

describe('the strictest obligation wins over all policies that decided', () => {
  it('in whatever order, and however often, the same is said', () => {
    fc.assert(
      fc.property(several, fc.infiniteStream(fc.nat()), (all, random) => {
        const shuffled = all.map((one) => ({ one, at: random.next().value })).sort((a, b) => a.at - b.at)
        const repeated = [...shuffled, ...shuffled].map(({ one }) => one)
        expect(combine(repeated)).toEqual(combine(all))
      }),
    )
  })

  it('however they are grouped', () => {
    fc.assert(
      fc.property(several, several, (some, others) => {
        expect(combine([combine(some), combine(others)])).toEqual(combine([...some, ...others]))
      }),
    )
  })

  it('and what comes out is never weaker than any single one of them', () => {
    fc.assert(
      fc.property(several, (all) => {
        const together = combine(all)
        for (const one of all) expect(isAsStrict(together, one), JSON.stringify({ together, one })).toBe(true)
      }),
    )
  })

  it('and stricter than every one of them only where another one is: nothing is made up', () => {
    fc.assert(
      fc.property(anyObligations, (one) => {
        expect(combine([one, NO_OBLIGATIONS])).toEqual(combine([one]))
        expect(combine([one, NO_OBLIGATIONS])).toEqual(one)
      }),
    )
  })
})

describe('an annotation', () => {
  const written = { id: 'x', owner: 'team' }
  it.each([
    ['rate', '60', 'calls/seconds'],
    ['rate', '0/60', 'calls/seconds'],
    ['rate', '10001/60', 'calls/seconds'],
    ['rate', '1/86401', 'calls/seconds'],
    ['approval', '', 'groups of approvers'],
    ['approval', 'On Call', 'groups of approvers'],
    ['redact', '/', undefined], // the member with the empty name (RFC 6901 §5)
    ['redact', 'items', 'JSON pointers'],
    ['redact', '/a~2', 'JSON pointers'],
    ['redact', Array.from({ length: 17 }, (_, i) => `/${i}`).join(), 'JSON pointers'],
    ['downscope', 'none', 'scope, resource, policy'],
    ['read_only', 'false', 'true'],
    ['notify', 'a b', 'names'],
    ['log', 'less', 'full'],
    ['review', '2027-02-30', 'a day'],
    ['review', '2027-02-28', undefined],
  ])('@%s("%s") is refused unless it says what it may', (name, text, allowed) => {
    const read = readAnnotations({ ...written, [name]: text }, 'permit')
    if (allowed === undefined) expect(read).not.toBeInstanceOf(Array)
    else expect(JSON.stringify(read)).toContain(allowed)
  })

  it('says how somebody consents only where it says who', () => {
    expect(readAnnotations({ ...written, approvers: '2' }, 'permit')).toMatchObject([{ got: '@approvers alone' }])
    expect(readAnnotations({ ...written, approvers: '2', approval: 'on-call' }, 'permit')).toMatchObject({
      obligations: { approval: { from: ['on-call'], count: 2, reuseS: undefined, fields: [] } },
    })
  })

  it('that only calls can carry out is refused on a policy for grants, and the other way round on a forbid', () => {
    expect(readAnnotations({ ...written, rate: '1/60' }, 'permit', ['grant'])).toMatchObject([
      { fix: 'remove @rate: nobody would carry it out here' },
    ])
    expect(readAnnotations({ ...written, revoke: 'task' }, 'permit')).toMatchObject([{ allowed: 'on forbid only' }])
    expect(readAnnotations({ ...written, revoke: 'task' }, 'forbid')).toMatchObject({ obligations: { revoke: 'task' } })
    expect(readAnnotations({ ...written, revoke: 'task' }, 'forbid', ['grant'])).toBeInstanceOf(Array)
  })
})

function obligationsOf(
  written: Readonly<Record<string, string | undefined>>,
  effect: 'permit' | 'forbid',
): Obligations {
  const said = Object.entries(written).filter((pair): pair is [string, string] => pair[1] !== undefined)
  const read = readAnnotations({ id: 'x', owner: 'team', ...Object.fromEntries(said) }, effect)
  if ('obligations' in read) return read.obligations
  throw new Error(JSON.stringify(read))
}

function isAsStrict(together: Obligations, one: Obligations): boolean {
  const most = (a: number | undefined, b: number | undefined) => b === undefined || (a !== undefined && a <= b)
  const all = (a: readonly string[] = [], b: readonly string[] = []) => b.every((item) => a.includes(item))
  const scale = (a: string | undefined, b: string | undefined, steps: readonly string[]) =>
    b === undefined || steps.indexOf(a ?? '') >= steps.indexOf(b)
  const [a, b] = [together.approval, one.approval]
  return (
    most(together.ttlS, one.ttlS) &&
    most(together.maxDepth, one.maxDepth) &&
    (together.singleUse || !one.singleUse) &&
    (together.readOnly === true || one.readOnly !== true) &&
    (together.log === 'full' || one.log === undefined) &&
    scale(together.foreignCredentials, one.foreignCredentials, ['log', 'refuse']) &&
    scale(together.downscope, one.downscope, DOWNSCOPES) &&
    scale(together.revoke, one.revoke, ['grant', 'task']) &&
    all(together.redact, one.redact) &&
    all(together.notify, one.notify) &&
    (one.rates ?? []).every((rate) => together.rates?.some(({ n, perS }) => n <= rate.n && perS >= rate.perS)) &&
    (b === undefined ||
      (a !== undefined &&
        all(a.from, b.from) &&
        all(a.fields, b.fields) &&
        a.count >= b.count &&
        (a.reuseS === undefined || (b.reuseS !== undefined && a.reuseS <= b.reuseS))))
  )
}
