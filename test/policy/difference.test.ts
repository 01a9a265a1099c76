/** `keyless policy diff`: the policies that changed, and what they decide otherwise. */
import { describe, expect, it } from 'vitest'
import { differenceOf } from '../../gateway/policy/tools/difference.ts'
import { keylessPolicy } from './command.fixture.ts'
import { bundleOf, catalogueOf, notesFile, permit, policyDir } from './policy.fixture.ts'

const catalogue = await catalogueOf(notesFile())
const READS = permit('readers', 'principal, action in Action::"read", resource')
const MINT = 'permit (principal, action == Action::"mint", resource) when { context.attested && context.ttl_s <= 900 };'

async function difference(old: string, now: string) {
  const [before, after] = [
    await bundleOf(catalogue, { 'own.cedar': old }),
    await bundleOf(catalogue, { 'own.cedar': now }),
  ]
  return differenceOf({ before, after, catalogue })
}

describe('a difference', () => {
  it('is none between equal policies, whatever their layout', async () => {
    const found = await difference(READS, `// a comment\n${READS.replaceAll(', ', ',\n  ')}`)
    expect(found).toMatchObject({ added: [], removed: [], changed: [], effects: [] })
    expect(found.tried).toBeGreaterThan(0)
  })

  it('names what was added, removed and changed, annotation by annotation', async () => {
    const kept = '@id("kept") @owner("a") @ttl("300") permit (principal, action in Action::"read", resource);'
    const { added, removed, changed } = await difference(
      kept + READS,
      `${kept.replace('300', '60').replace('"a"', '"b"')}${permit('new', 'principal, action == Action::"notes:notes.write", resource')}`,
    )
    expect(added.map(({ id }) => id.split('#')[1])).toEqual(['new'])
    expect(removed.map(({ id }) => id.split('#')[1])).toEqual(['readers'])
    expect(changed.map(({ what }) => what)).toEqual([['@owner: a → b', '@ttl: 300 → 60']])
  })

  it('finds the value at which a limit was moved, behind conditions that have to hold first', async () => {
    const mint = `@id("mint") @owner("test") ${MINT}`
    const { effects } = await difference(mint, mint.replace('900', '1800'))
    expect(effects).toMatchObject([
      { asked: ['mint notes:*'], from: 'deny', to: 'allow', when: { 'context.attested': true, 'context.ttl_s': 901 } },
    ])
  })

  it('finds an approval that is asked for from now on', async () => {
    const { effects } = await difference(READS, READS.replace('@owner', '@approval("on-call") @owner'))
    expect(effects).toMatchObject([{ asked: ['notes:notes.list', 'notes:notes.read'], from: 'allow', to: 'approval' }])
  })
})

it('keyless policy diff fails on wider policies when it is asked to', async () => {
  const narrow = await policyDir({ 'own.cedar': READS })
  const wide = await policyDir({ 'own.cedar': READS.replace('Action::"read"', '[Action::"read", Action::"write"]') })
  const args = ['--services', 'demo', '--narrower']
  const wider = await keylessPolicy('diff', narrow, wide, ...args)
  expect(wider.stdout).toContain('own#readers: scope\n\nallows more:\n  deny → allow: demo:notes.create')
  expect(wider.code).toBe(1)
  const narrower = await keylessPolicy('diff', wide, narrow, ...args)
  expect(narrower.stdout).toContain('\nallows less:\n  allow → deny: demo:notes.create')
  expect(narrower.code).toBe(0)
})
