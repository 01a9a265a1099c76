/** Suggested policies: what an agent put into its requests is never more than a text in them. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Observed, suggest } from '../../gateway/policy/tools/suggest.ts'
import { bundleOf, catalogueOf, notesFile } from './policy.fixture.ts'

const catalogue = await catalogueOf(notesFile())
const OPTIONS = { most: 3, review: '2027-02-20' }

function seen(tags: Record<string, string> | undefined, more: readonly (readonly [string, string])[] = []): Observed {
  const facts = new Map<string, string | Record<string, string>>([
    ['principal.owner', 'ana@acme.test'],
    ['resource.host', 'notes.test'],
    ['context.human', 'ana'],
    ['context.human_iss', 'local:test'],
    ...more,
  ])
  if (tags !== undefined) facts.set('resource tags', tags)
  return { agent: 'spiffe://acme.test/agents/triage', operation: 'notes:notes.read', facts }
}

const textOf = (observed: readonly Observed[]) => suggest(observed, OPTIONS)[0]?.policy ?? ''

describe('a suggested policy', () => {
  it('loads whatever agents, owners, humans and paths are called', async () => {
    const hostile = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constant('"; } permit (principal, action, resource); //'),
    )
    await fc.assert(
      fc.asyncProperty(hostile, hostile, fc.string(), async (tag, human, agent) => {
        const observed = { ...seen({ id: tag }, [['context.human', human]]), agent }
        const [{ policy } = { policy: undefined }] = suggest([observed], OPTIONS)
        if (policy === undefined) return
        using bundle = await bundleOf(catalogue, { 'a.cedar': policy })
        expect(bundle.policies.map(({ json }) => json.effect)).toEqual(['forbid'])
      }),
      { numRuns: 8 },
    )
  })

  it('leaves open what Cedar does not load, and says so', () => {
    const text = textOf([seen({ id: 'pаypal' /* Cyrillic */, owner: 'acme' })])
    expect(text).toContain('// id of notes:notes.read is left open: Cedar does not load policies with such texts')
    expect(text).toContain('resource.getTag("owner") == "acme"')
  })

  it('leaves open what varies most, and says so', () => {
    const text = textOf(['1', '2', '3', '4'].map((id) => seen({ id, owner: 'acme' })))
    expect(text).toContain('// id of notes:notes.read is left open: 4 different ones were seen.')
    expect(text).toContain('resource.hasTag("owner") && resource.getTag("owner") == "acme"')
    expect(text).not.toContain('"id"')
  })

  it('does not narrow by what is not known of every call, and says so', () => {
    const text = textOf([seen({ id: '1' }), seen(undefined)])
    expect(text).toContain('// What paths of notes:notes.read held is not known of every call')
    expect(text).not.toContain('hasTag')
  })

  it('is owned by whoever owns the agent, and due for review', () => {
    expect(textOf([seen({})])).toContain('@owner("ana@acme.test")\n@review("2027-02-20")\nforbid (')
  })

  it('is none for an agent whose id Cedar takes for a trick', () => {
    expect(suggest([{ ...seen({}), agent: 'triagé' }], OPTIONS)).toMatchObject([{ policy: undefined, calls: 1 }])
  })
})
