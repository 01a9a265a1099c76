import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import { excessOf, narrow } from '../../gateway/grant/attenuate/attenuate.ts'
import { detailsOf, parseDetails } from '../../gateway/protocol/details.ts'
import type { Authority } from '../../gateway/protocol/grant.ts'
import { type Facts, reach } from '../../gateway/protocol/reach.ts'
import {
  type Draw,
  drawAuthority,
  drawChild,
  drawer,
  drawFacts,
  drawUsage,
  grantWith,
  isAffordable,
  type Usage,
} from '../rig/authority.ts'

/** What was drawn, so that a generator that draws nothing of interest is noticed. */
const drawn = { pairs: 0, subsets: 0, equal: 0, allowed: 0, stopped: 0, narrowed: 0, shared: 0 }

function property(runs: number, check: (draw: Draw) => void): void {
  fc.assert(
    fc.property(fc.integer(), (seed) => check(drawer(seed))),
    { numRuns: runs },
  )
}

const isWithin = (parent: readonly Authority[], child: readonly Authority[]) => excessOf(parent, child).length === 0

/** Whether one entry allows the request and the spending that comes with it. */
function allows(authority: readonly Authority[], facts: Facts, usage: Usage): boolean {
  return authority.some(
    (entry) => reach(grantWith([entry]), facts).isWithin && isAffordable(entry.constraints ?? {}, usage),
  )
}

function chainOf(draw: Draw, length: number): Authority[][] {
  const chain = [drawAuthority(draw)]
  while (chain.length < length) chain.push(drawChild(draw, chain.at(-1) ?? []))
  return chain
}

function pairsOf(chain: readonly Authority[][]): [Authority[], Authority[]][] {
  return chain.flatMap((parent, i) => chain.slice(i + 1).map((child): [Authority[], Authority[]] => [parent, child]))
}

describe('a child within its parent', () => {
  it('allows nothing that the parent does not allow', () => {
    property(4_000, (draw) => {
      const chain = chainOf(draw, 4)
      const usage = drawUsage(draw)
      for (const [parent, child] of pairsOf(chain)) {
        const facts = drawFacts(draw, [parent, child])
        const isSubset = isWithin(parent, child)
        const isAllowed = allows(child, facts, usage)
        const isTooMuch = isAllowed && !allows(parent, facts, usage)
        drawn.pairs++
        drawn.subsets += Number(isSubset)
        drawn.allowed += Number(isSubset && isAllowed)
        drawn.stopped += Number(isTooMuch)
        if (isTooMuch) expect(isSubset).toBe(false)
      }
    })
  }, 60_000)

  it('is within whatever its parent is within, and everything within both ways allows the same', () => {
    property(3_000, (draw) => {
      const [a = [], b = [], c = [], d = []] = chainOf(draw, 4)
      drawn.pairs += 6
      for (const [top, middle, low] of [
        [a, b, c],
        [b, c, d],
        [a, b, d],
      ] as const) {
        if (!isWithin(top, top)) expect(top).toBe('within itself')
        if (isWithin(top, middle) && isWithin(middle, low) && !isWithin(top, low)) expect(low).toBe('within the top')
        if (!isWithin(top, middle) || !isWithin(middle, top)) continue
        drawn.equal++
        const facts = drawFacts(draw, [top, middle])
        const usage = drawUsage(draw)
        expect(allows(top, facts, usage)).toBe(allows(middle, facts, usage))
      }
    })
  })

  it('lies with each of its entries in one entry of the parent: two never add up', () => {
    property(2_000, (draw) => {
      const [parent = [], child = []] = chainOf(draw, 2)
      drawn.pairs++
      const expected = child.every((entry) => parent.some((wide) => isWithin([wide], [entry])))
      expect(isWithin(parent, child)).toBe(expected)
    })
  })

  it('names every excess by its place, what was got and what is allowed', () => {
    property(1_000, (draw) => {
      const [parent = [], child = []] = chainOf(draw, 2)
      drawn.pairs++
      for (const { at, got, allowed } of excessOf(parent, child)) {
        expect(at).toMatch(/^authorization_details\[\d\]\.(?:operations|actions|locations|paths|constraints\.)/)
        expect(got.length).toBeGreaterThan(0)
        expect(allowed.length).toBeGreaterThan(0)
      }
    })
  })
})

describe('narrowing', () => {
  it('gives what is within both, and the child itself when nothing has to go', () => {
    property(4_000, (draw) => {
      const parent = drawAuthority(draw)
      const child = draw(true, false) ? drawChild(draw, parent) : drawAuthority(draw)
      drawn.pairs++
      const { authority, cut } = narrow(parent, child)
      expect(excessOf(parent, authority)).toEqual([])
      expect(excessOf(child, authority)).toEqual([])
      if (isWithin(parent, child)) {
        expect(authority).toEqual(child)
        expect(cut).toEqual([])
      } else {
        drawn.narrowed++
        expect(cut.length).toBeGreaterThan(0)
        if (authority.length > 0) drawn.shared++
      }
      if (authority.length > 0) expect(parseDetails(detailsOf(authority))).toEqual(authority)
    })
  })
})

describe('a chain', () => {
  it('reaches what every one of its levels reaches', () => {
    property(3_000, (draw) => {
      const chain = chainOf(draw, draw(2, 3, 4))
      drawn.pairs += chain.length - 1
      const facts = drawFacts(draw, chain)
      const [own = [], ...above] = chain.toReversed()
      const all = reach(grantWith(own, ...above.toReversed()), facts)
      expect(all.isWithin).toBe(chain.every((authority) => reach(grantWith(authority), facts).isWithin))
      if (all.isWithin) expect([0, chain.length]).toContain(all.levels.length)
    })
  })
})

describe('details', () => {
  it('are read as they were written', () => {
    property(2_000, (draw) => {
      const authority = drawAuthority(draw)
      expect(parseDetails(JSON.parse(JSON.stringify(detailsOf(authority))))).toEqual(authority)
    })
  })
})

afterAll(() => {
  expect(drawn.pairs).toBeGreaterThan(44_000)
  expect(drawn.subsets).toBeGreaterThan(6_500) // of 24 000
  expect(drawn.allowed).toBeGreaterThan(2_600) // requests, each to one of the subsets
  expect(drawn.equal).toBeGreaterThan(160)
  expect(drawn.stopped).toBeGreaterThan(1_700)
  expect(drawn.shared).toBeGreaterThan(1_300)
})
