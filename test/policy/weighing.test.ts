/** What is told from a log that does not hold everything holds, whatever the missing facts were. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { Bundle } from '../../gateway/policy/source/bundle.ts'
import { answer, sceneOfOperation } from '../../gateway/policy/tools/scene.ts'
import { factsOf } from '../../gateway/policy/tools/supposed.ts'
import { bundleOf, catalogueOf, notesFile } from './policy.fixture.ts'

const catalogue = await catalogueOf(notesFile())

const ATOMS = [
  'context.attested',
  'context.human == "ana"',
  'context.ttl_s < 300',
  'principal.risk_tier == "low"',
  '(resource.hasTag("id") && resource.getTag("id") == "7")',
  'resource.access == "read"',
]
const NAMES = ['context.attested', 'context.human', 'context.ttl_s', 'principal.risk_tier', 'resource tags']

const condition = fc.letrec<{ any: string }>((tie) => ({
  any: fc.oneof(
    { maxDepth: 2 },
    fc.constantFrom(...ATOMS),
    fc.tuple(tie('any'), tie('any')).map(([a, b]) => `(${a} && ${b})`),
    fc.tuple(tie('any'), tie('any')).map(([a, b]) => `(${a} || ${b})`),
    tie('any').map((a) => `!(${a})`),
  ),
})).any

const facts = fc
  .record({
    attested: fc.boolean(),
    human: fc.constantFrom('ana', 'bob'),
    ttl: fc.constantFrom(100, 900),
    risk: fc.constantFrom('low', 'high'),
    id: fc.constantFrom('7', '8', undefined),
  })
  .map(({ attested, human, ttl, risk, id }) =>
    factsOf('call', {
      principal: { risk_tier: risk },
      resource: { tags: id === undefined ? {} : { id } },
      context: { attested, human, ttl_s: ttl },
    }),
  )

async function load(texts: readonly (readonly [string, string])[]): Promise<Bundle | undefined> {
  const written = texts.map(
    ([effect, when], n) =>
      `@id("p${n}") @owner("test") @ttl("${60 + n}") ${effect} (principal, action, resource is Endpoint) when { ${when} };`,
  )
  const plain = written.map((text) => (text.includes(' forbid ') ? text.replace(/@ttl\("\d+"\) /, '') : text))
  return bundleOf(catalogue, { 'own.cedar': plain.join('\n') }).catch(() => undefined)
}

it('a decision that is told with facts missing is the one with any facts in their place', {
  timeout: 30_000,
}, async () => {
  const scene = sceneOfOperation({ catalogue }, 'notes:notes.read')
  const policies = fc.array(fc.tuple(fc.constantFrom('permit', 'permit', 'forbid'), condition), {
    minLength: 1,
    maxLength: 4,
  })
  let told = 0
  let open = 0
  await fc.assert(
    fc.asyncProperty(
      policies,
      fc.subarray(NAMES),
      facts,
      fc.array(facts, { minLength: 3, maxLength: 3 }),
      async (texts, hidden, one, others) => {
        using bundle = await load(texts)
        fc.pre(bundle !== undefined) // Cedar refuses policies that can never apply
        if (bundle === undefined) return
        const known = new Map([...one].filter(([name]) => !hidden.includes(name)))
        const partial = await answer({ bundle }, scene, known, (name) => !hidden.includes(name))
        const [seen] = partial.seen
        for (const other of others) {
          const whole = await answer({ bundle }, scene, new Map([...other, ...known]))
          if (seen?.unknown !== undefined) {
            open += 1
            expect(seen.unknown.every((name) => hidden.includes(name))).toBe(true)
            continue
          }
          told += 1
          expect(whole.decision.effect).toBe(partial.decision.effect)
          if (seen?.isOpen !== true && whole.decision.effect === 'allow')
            expect(whole.decision.obligations).toEqual(partial.decision.obligations)
        }
      },
    ),
    { numRuns: 20 },
  )
  expect(told).toBeGreaterThan(5)
  expect(open).toBeGreaterThan(5)
})
