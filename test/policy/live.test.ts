/** Bundles that take each other's place: what is kept of those before, what they still say, and that others are checked apart. */
import { describe, expect, it } from 'vitest'
import { createEngine } from '../../gateway/policy/engine.ts'
import { idsGiven } from '../../gateway/policy/preparsed.ts'
import { loadBundle } from '../../gateway/policy/source/bundle.ts'
import { ReviewThread } from '../../gateway/policy/tools/review-thread.ts'
import { allServices, ask, catalogueOf, notesFile, permit, policiesDir, shippedDir } from './policy.fixture.ts'

const notes = await catalogueOf(notesFile())
const bundle = (...texts: string[]) =>
  loadBundle({ paths: [{ label: 'test/a.cedar', text: texts.join('\n') }], catalogue: notes })
const everything = permit('all', 'principal, action, resource')

describe('a bundle that another takes the place of', () => {
  it('leaves nothing behind, however often that happens', async () => {
    let last = await bundle(everything)
    const next = async (n: number) => {
      const made = await bundle(
        everything,
        permit(`p${n}`, `principal, action, resource == Endpoint::"notes:notes.list"`),
      )
      last[Symbol.dispose]()
      last = made
    }
    await next(0)
    await next(1)
    const before = idsGiven()
    for (let n = 2; n < 20; n++) await next(n)
    expect(idsGiven()).toEqual(before)
    last[Symbol.dispose]()
  })

  it('denies everything from then on, and never decides by the policies of the next', async () => {
    const old = await bundle(everything)
    const engine = createEngine(old, { remembers: false })
    expect(engine.decide(ask(notes)).effect).toBe('allow')
    old[Symbol.dispose]()
    using _next = await bundle(everything, permit('more', 'principal, action, resource'))
    expect(engine.decide(ask(notes))).toMatchObject({ effect: 'deny', policyIds: [] })
  })

  it('shares what is the same with it, and lets go of it once', async () => {
    const [a, b] = [await bundle(everything), await bundle(everything)]
    const engine = createEngine(b, { remembers: false })
    a[Symbol.dispose]()
    a[Symbol.dispose]()
    expect(engine.decide(ask(notes)).effect).toBe('allow')
    b[Symbol.dispose]()
  })
})

describe('policies that are checked in a thread of their own', () => {
  it('become the same bundle, and the same faults', async () => {
    const services = allServices
    const catalogue = await catalogueOf(...services)
    const reviews = new ReviewThread(catalogue, { services, shippedDir, baseDir: policiesDir })
    const here = await loadBundle({ paths: [policiesDir], catalogue })
    const apart = await reviews.load([policiesDir])
    expect(apart.digest).toBe(here.digest)
    expect(apart.policies).toEqual(here.policies)
    const faulty = [
      policiesDir,
      { label: 'x/y.cedar', text: permit('x', 'principal, action == Action::"githbu:x", resource') },
    ]
    await expect(reviews.load(faulty)).rejects.toThrow(/y\.cedar:1\n.*unrecognized action `Action::"githbu:x"`/)
    await reviews.close()
    for (const made of [here, apart]) made[Symbol.dispose]()
  })
})
