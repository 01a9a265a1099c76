/** Who has to agree, whose word counts for what, and how often an approval counts. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type People, standingOf } from '../../gateway/approval/people.ts'
import {
  consented,
  denied,
  isStanding,
  missingGroups,
  neededPeople,
  stateAt,
  taken,
} from '../../gateway/approval/record.ts'
import type { Consent } from '../../gateway/protocol/approval.ts'
import { record } from './approval.fixture.ts'

const NOW = Date.UTC(2026, 5, 1)
const ISS = 'https://id.acme.test'
const id = (sub: string) => ({ iss: ISS, sub })
const PEOPLE: People = {
  groups: new Map([
    ['on-call', ['ana', 'ben', 'cleo']],
    ['security', ['cleo', 'dan']],
  ]),
  approvers: ['ana', 'ben', 'cleo', 'dan'].map((name) => ({
    name,
    identities: [id(name), { iss: 'local:box', sub: name }],
  })),
}
const consent = (name: string, groups: readonly string[]): Consent => ({
  name,
  groups,
  human: id(name),
  at: 0,
  via: 'test',
})

describe('whose word counts', () => {
  const asked = (from: readonly string[], human = id('root')) => {
    const { facts, terms } = record(NOW)
    return { facts: { ...facts, human }, terms: { ...terms, from } }
  }

  it('counts for the groups that are asked and that they are in', () => {
    expect(standingOf(PEOPLE, asked(['on-call', 'security']), id('cleo'))).toMatchObject({
      groups: ['on-call', 'security'],
    })
    expect(standingOf(PEOPLE, asked(['security']), id('ben'))).toHaveProperty('hindrance')
    expect(standingOf(PEOPLE, asked(['on-call']), id('stranger'))).toHaveProperty('hindrance')
    expect(standingOf(PEOPLE, asked(['on-call']), { iss: 'https://evil.test', sub: 'ben' })).toHaveProperty('hindrance')
  })

  it('is never that of whoever asks, by whichever identity it comes', () => {
    for (const human of [id('ana'), { iss: 'local:box', sub: 'ana' }]) {
      expect(standingOf(PEOPLE, asked(['on-call'], id('ana')), human)).toHaveProperty('hindrance')
      expect(standingOf(PEOPLE, asked(['on-call', 'human'], id('ana')), human)).toMatchObject({ groups: ['human'] })
    }
    const owned = { iss: 'registry', sub: 'ana' } // an agent that came by itself works for its owner
    expect(standingOf(PEOPLE, asked(['on-call'], owned), id('ana'))).toHaveProperty('hindrance')
    expect(standingOf(PEOPLE, asked(['on-call']), { iss: ISS, sub: 'spiffe://acme.test/lead' })).toHaveProperty(
      'hindrance',
    )
  })

  it('is not that of the same user at another machine of the fleet either', () => {
    const elsewhere = { iss: 'local:other-box', sub: 'ana' }
    expect(standingOf(PEOPLE, asked(['on-call'], elsewhere), { iss: 'local:box', sub: 'ana' })).toHaveProperty(
      'hindrance',
    )
    expect(standingOf(PEOPLE, asked(['human'], elsewhere), { iss: 'local:box', sub: 'ana' })).toHaveProperty(
      'hindrance',
    )
    expect(standingOf(PEOPLE, asked(['on-call'], elsewhere), id('cleo'))).toMatchObject({ groups: ['on-call'] })
  })

  it('is that of the owner whose agent came by itself by the name in the settings, and of nobody who is only called so', () => {
    const owned = (sub: string) => ({ iss: 'registry', sub })
    expect(standingOf(PEOPLE, asked(['human'], owned('ana')), id('ana'))).toMatchObject({ groups: ['human'] })
    for (const human of [id('otto'), { iss: 'local:box', sub: 'otto' }])
      expect(standingOf(PEOPLE, asked(['human'], owned('otto')), human)).toHaveProperty('hindrance')
    const approvers = [{ name: 'ben', identities: [id('otto')] }]
    for (const from of [['human'], ['on-call']])
      expect(standingOf({ ...PEOPLE, approvers }, asked(from, owned('otto')), id('otto'))).toHaveProperty('hindrance')
  })

  it('is nobody else’s where the human is asked', () => {
    expect(standingOf(PEOPLE, asked(['human']), id('ben'))).toHaveProperty('hindrance')
    expect(standingOf(PEOPLE, asked(['human']), id('root'))).toMatchObject({ groups: ['human'] })
  })
})

describe('an approval', () => {
  const group: fc.Arbitrary<string> = fc.constantFrom('on-call', 'security', 'human')
  const word = fc.record({
    name: fc.constantFrom('ana', 'ben', 'cleo', 'dan', 'eve'),
    groups: fc.uniqueArray(group, { minLength: 1 }),
  })

  it('is given exactly when every group has spoken and enough different people have', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(group, { minLength: 1 }),
        fc.integer({ min: 1, max: 4 }),
        fc.array(word, { maxLength: 8 }),
        (from, count, words) => {
          let one = record(NOW, { terms: { from, count, reuseS: undefined, fields: [] } })
          for (const { name, groups } of words) {
            if (one.state === 'approved') break
            one = consented(one, consent(name, groups), NOW, 60_000)
          }
          const people = new Set(one.consents.map(({ name }) => name)).size
          const covered = from.every((each) => one.consents.some(({ groups }) => groups.includes(each)))
          expect(one.state === 'approved').toBe(people >= count && covered)
          expect(one.consents.length).toBe(people) // nobody twice
          expect(neededPeople(one) === 0).toBe(one.state === 'approved')
          expect(missingGroups(one).every((each) => from.includes(each))).toBe(true)
        },
      ),
    )
  })

  it('is over when its time is, which is nobody’s no', () => {
    const one = record(NOW)
    expect(stateAt(one, one.untilMs - 1)).toEqual({ state: 'pending' })
    expect(stateAt(one, one.untilMs)).toEqual({ state: 'expired', why: 'time' })
    const no = denied(one, { name: 'ben', human: id('ben'), at: 0, via: 'test' }, NOW + 1000)
    expect(stateAt(no, NOW + 5000)).toEqual({ state: 'denied' })
    expect([isStanding(no, NOW), isStanding(no, NOW + 1000)]).toEqual([true, false]) // then it may be asked again
  })

  it('counts once, or for as long as its terms say', () => {
    const once = consented(record(NOW), consent('ben', ['on-call']), NOW, 60_000)
    expect(once).toMatchObject({ state: 'approved', untilMs: NOW + 60_000 })
    expect(isStanding(taken(once), NOW)).toBe(false)
    const terms = { ...once.terms, reuseS: 5 }
    const often = consented(record(NOW, { terms }), consent('ben', ['on-call']), NOW, 60_000)
    expect(taken(often)).toBe(often)
    expect(stateAt(often, NOW + 5000)).toEqual({ state: 'expired', why: 'time' })
  })
})
