/** Orders are the same on all replicas, whatever the store loses and whoever writes to it; and no clock decides what they end. */
import { createSecretKey, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest'
import { OrderExchange } from '../../gateway/grant/orders/exchange.ts'
import { InForce, type OrderTarget } from '../../gateway/grant/orders/order.ts'
import { createOrderSeal } from '../../gateway/grant/orders/order-seal.ts'
import { Orders } from '../../gateway/grant/orders/orders.ts'
import { openOrderKeep } from '../../gateway/grant/store/sqlite-orders.ts'
import { type StoredOrder, storeUnavailable } from '../../gateway/grant/store/store.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { SignalWord } from '../../gateway/protocol/revocation.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'
import { billing, triage } from './grant.fixture.ts'
import { grantBelow } from './tree.fixture.ts'

const key = createSecretKey(randomBytes(32))
const TRIAGE: OrderTarget = { agent: triage.id }
const dir = mkdtempSync(join(tmpdir(), 'keyless-orders-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

/** What Redis would hold. */
class Shelf {
  version = 0
  isAway = false
  readonly bodies = new Map<string, string>()
  readonly trustMs = 1_000
  /** Happens while the next order is being put. */
  atPut: (() => void) | undefined
  /** Happens before the next orders are forgotten. */
  atForget: (() => Promise<unknown>) | undefined

  async orders(): Promise<{ version: number; orders: readonly StoredOrder[] }> {
    this.#ask()
    return { version: this.version, orders: [...this.bodies].map(([about, body]) => ({ about, body })) }
  }

  async ordersVersion(): Promise<number> {
    this.#ask()
    return this.version
  }

  async putOrder(_: string, { about, body }: StoredOrder, o: { expected: number; version: number }) {
    this.#ask()
    if (this.version !== o.expected) return false
    this.version = o.version
    this.bodies.set(about, body)
    const happens = this.atPut
    this.atPut = undefined
    happens?.()
    return true
  }

  async forgetOrders(_: string, about: readonly string[], expected: number) {
    await this.atForget?.()
    if (this.version === expected) for (const one of about) this.bodies.delete(one)
  }

  lose(): void {
    this.version = 0
    this.bodies.clear()
  }

  #ask(): void {
    if (this.isAway) throw storeUnavailable(undefined)
  }
}

let shelf: Shelf
let clock: ManualClock
let open: Orders[] = []
beforeEach(() => {
  shelf = new Shelf()
  clock = manualClock()
})
afterEach(() => {
  for (const orders of open) orders.close()
  open = []
})

function replica(o: { clock?: ManualClock; file?: string; tenant?: string } = {}): Orders {
  const keep = o.file === undefined ? undefined : openOrderKeep(join(dir, o.file))
  const orders = new Orders({
    ...{ tenant: o.tenant ?? 'acme', store: shelf, keep, key, clock: o.clock ?? clock },
    onChange: () => {},
  })
  open.push(orders)
  return orders
}

/** Issued by a replica in the knowledge that it has now. */
async function issued(by: Orders, changes: Partial<Grant> = {}): Promise<Grant> {
  const issuance = [{ after: await by.current(), policySet: 'sha256:now' }]
  return grantBelow(undefined, clock, { issuance, ...changes })
}

const give = (by: Orders, target: OrderTarget = TRIAGE, untilS?: number | null, signal?: SignalWord) =>
  by.give({ id: uuidv7(), target, reason: 'test', untilS, signal })
const lift = (by: Orders, target: OrderTarget = TRIAGE, signal?: SignalWord) =>
  by.lift(target, by.blocked(target, signal).id)
const isOver = (at: Orders, grant: Grant) => at.endOf(grant)?.code
const heard = async (at: Orders) => at.heed(shelf.version)

describe('an order', () => {
  it('ends what was issued without knowledge of it, however far ahead the clock of the issuer is', async () => {
    const ahead = manualClock()
    ahead.advance(3_600_000)
    const [here, there] = [replica(), replica({ clock: ahead })]
    const grant = await issued(there)
    await give(here)
    expect(isOver(here, grant)).toBe('grant_revoked')
    await heard(there)
    expect(isOver(there, grant)).toBe('grant_revoked')
  })

  it('leaves alone what is issued in knowledge of it, however far behind the clock of the issuer is', async () => {
    const ahead = manualClock()
    ahead.advance(3_600_000)
    const [here, there] = [replica({ clock: ahead }), replica()]
    await give(here)
    const grant = await issued(there)
    expect(isOver(there, grant)).toBeUndefined()
    expect(isOver(here, grant)).toBeUndefined()
  })

  it('is in force where it is given although the store is away, and elsewhere once it is back', async () => {
    const [here, there] = [replica(), replica()]
    const grant = await issued(here)
    shelf.isAway = true
    await expect(give(here)).rejects.toMatchObject({ code: 'store_unavailable' })
    expect(isOver(here, grant)).toBe('grant_revoked')
    await expect(there.current()).rejects.toMatchObject({ code: 'store_unavailable' })
    shelf.isAway = false
    here.look()
    await expect.poll(() => shelf.version).toBeGreaterThan(0)
    await heard(there)
    expect(isOver(there, grant)).toBe('grant_revoked')
  })

  it('of another tenant ends nothing', async () => {
    const other = replica({ tenant: 'globex' })
    const grant = await issued(replica())
    await give(other, { everything: true })
    expect(isOver(other, grant)).toBeUndefined()
  })

  it('about an agent below leaves the grants above alone, and ends what is below', async () => {
    const here = replica()
    const lineage = (...agents: string[]) => [
      { n: 0, type: 'human' as const, id: 'ana' },
      ...agents.map((id, i) => ({ n: i + 1, type: 'ai_agent' as const, id })),
    ]
    const hop = { after: await here.current(), policySet: 'sha256:now' }
    const root = grantBelow(undefined, clock, { lineage: lineage(triage.id), issuance: [hop] })
    const child = grantBelow(root, clock, { lineage: lineage(triage.id, billing.id), issuance: [hop, hop] })
    await give(here, { agent: billing.id })
    expect([isOver(here, root), isOver(here, child)]).toEqual([undefined, 'grant_revoked'])
    const late = { after: await here.current(), policySet: 'sha256:now' }
    const again = grantBelow(root, clock, { lineage: lineage(triage.id, billing.id), issuance: [hop, late] })
    expect(isOver(here, again), 'delegated anew').toBeUndefined()
    await give(here, { policySet: 'sha256:now' })
    expect(isOver(here, again)).toBe('grant_revoked')
  })

  it('ends a grant of a gateway from before there were orders', async () => {
    const here = replica()
    await give(here)
    expect(isOver(here, grantBelow(undefined, clock))).toBe('grant_revoked')
  })
})

describe('what is ordered while an order about the same is being put', () => {
  // Numbers leave room at random, so that one try in two would not show it.
  const agents = Array.from({ length: 20 }, (_, n) => ({ agent: `spiffe://acme.test/agents/${n}` }))

  it('is in force at once, everywhere, and stays', async () => {
    const [here, there] = [replica(), replica()]
    for (const [n, target] of agents.entries()) {
      let second: Promise<unknown> | undefined
      shelf.atPut = () => {
        second = give(here, target, null)
      }
      await give(here, target)
      await second
      expect(here.blocks().length, `block ${n}`).toBe(n + 1)
    }
    await heard(there)
    expect(there.blocks().length).toBe(agents.length)
  })

  it('takes the block back that is being put, when that is lifted', async () => {
    const [here, there] = [replica(), replica()]
    for (const target of agents) {
      let second: Promise<unknown> | undefined
      shelf.atPut = () => {
        second = lift(here, target)
      }
      await give(here, target, null)
      await second
      expect(here.blocks()).toEqual([])
    }
    await heard(there)
    expect(there.blocks()).toEqual([])
  })
})

describe('what a store loses', () => {
  it('is put back by whoever knows it, and ends what was issued meanwhile', async () => {
    const [here, there] = [replica(), replica()]
    await give(here, TRIAGE, null)
    shelf.lose()
    const meanwhile = await issued(there) // by one that never heard of it
    here.look()
    await expect.poll(() => shelf.bodies.size).toBe(1)
    await heard(there)
    expect(isOver(there, meanwhile)).toBe('access_blocked')
    await lift(there)
    expect(isOver(there, meanwhile)).toBe('grant_revoked')
  })

  it('ends what was issued meanwhile also when another order has taken its number', async () => {
    const [here, there] = [replica(), replica()]
    await give(here)
    shelf.lose()
    clock.advance(5_000)
    await give(there, { agent: billing.id })
    const unaware = await issued(there)
    here.look()
    await expect.poll(() => shelf.bodies.size).toBe(2)
    await heard(there)
    expect(isOver(there, unaware)).toBe('grant_revoked')
  })

  it('is known to the next process of any replica', async () => {
    const first = replica({ file: 'next' })
    await give(first, TRIAGE, null)
    first.close()
    shelf.lose()
    const next = replica({ file: 'next' })
    expect(next.blocks()).toMatchObject([{ target: TRIAGE, untilS: null }])
    await next.current() // nothing is missing in what it says
    next.look()
    await expect.poll(() => shelf.bodies.size).toBe(1)
  })

  it('does not come back from a replica that was away when it was lifted', async () => {
    const away = replica({ file: 'away' })
    await give(away, TRIAGE, null)
    away.close()
    const here = replica()
    await here.current()
    await lift(here)
    clock.advance(30 * 86_400_000)
    const back = replica({ file: 'away' })
    await heard(back)
    expect(back.blocks()).toEqual([])
    await heard(here)
    expect(here.blocks()).toEqual([])
  })
})

describe('whoever writes to the store', () => {
  it('can neither make an order nor change one, nor put an old one in the place of the new', async () => {
    const [here, there] = [replica(), replica()]
    await give(here, TRIAGE, Math.floor(clock.nowMs() / 1000) + 60)
    const [[about, older] = ['', '']] = [...shelf.bodies]
    await give(here, TRIAGE, null)
    const forgeries = [older, `${older.slice(0, -4)}AAAA`, 'no order at all', '.']
    for (const body of forgeries) {
      shelf.bodies.set(about, body)
      shelf.bodies.set('another name', older)
      shelf.version += 1
      await heard(here)
      expect(here.blocks()).toMatchObject([{ untilS: null }])
    }
    await heard(there)
    expect(there.blocks()).toMatchObject([{ untilS: null }])
  })

  it('takes nothing out for longer than a minute, also where the version is left as it was', async () => {
    const here = replica()
    await give(here, TRIAGE, null)
    shelf.bodies.clear()
    clock.advance(60_000)
    here.look()
    await expect.poll(() => shelf.bodies.size).toBe(1)
    const late = replica()
    await heard(late)
    expect(late.blocks()).toMatchObject([{ target: TRIAGE }])
  })

  it.each([Number.NaN, Number.MAX_SAFE_INTEGER, 0.5])(
    'makes nothing pass with a version that is none: %d',
    async (v) => {
      const here = replica()
      await here.current()
      await expect(async () => here.heed(v)).rejects.toMatchObject({ code: 'store_unavailable' })
    },
  )
})

describe('a block that a signal asked for', () => {
  const word = (issuer: string, issuedAt: number): SignalWord => ({ issuer, issuedAt })
  const refused = { code: 'instruction_invalid' }

  it('is lifted by a later word of the same issuer, by people at any time, and by no other issuer', async () => {
    const here = replica()
    await give(here, TRIAGE, null, word('a', 100))
    expect(() => here.blocked(TRIAGE, word('b', 200))).toThrow(expect.objectContaining(refused))
    expect(() => here.blocked(TRIAGE, word('a', 99)), 'it was on its way for longer').toThrow(
      expect.objectContaining(refused),
    )
    await lift(here, TRIAGE, word('a', 101))
    expect(here.blocks()).toEqual([])
    await give(here, TRIAGE, null, word('a', 102))
    await lift(here)
    expect(here.blocks()).toEqual([])
  })

  it('is not its own any more once somebody else blocks the same, and stays its own when it ends more', async () => {
    const here = replica()
    await give(here, TRIAGE, null, word('a', 100))
    await give(here) // ends, blocks nothing
    expect(here.blocked(TRIAGE, word('a', 100))).toBeDefined()
    await give(here, TRIAGE, null, word('a', 300))
    expect(() => here.blocked(TRIAGE, word('a', 200))).toThrow(expect.objectContaining(refused))
    await give(here, TRIAGE, Math.floor(clock.nowMs() / 1000) + 60)
    expect(() => here.blocked(TRIAGE, word('a', 400))).toThrow(expect.objectContaining(refused))
    await lift(here)
    await give(here, { everything: true }, null)
    await give(here, { everything: true }, null, word('a', 500))
    expect(() => here.blocked({ everything: true }, word('a', 600))).toThrow(expect.objectContaining(refused))
  })

  it('is not lifted in the place of one that was given in the same moment', async () => {
    const here = replica()
    await give(here, TRIAGE, null, word('a', 100))
    const { id } = here.blocked(TRIAGE, word('a', 101))
    await give(here, TRIAGE, null)
    await expect(here.lift(TRIAGE, id)).rejects.toMatchObject(refused)
    expect(here.blocks()).toHaveLength(1)
  })
})

describe('a block', () => {
  it('stays as long as anybody said', async () => {
    const here = replica()
    const nowS = Math.floor(clock.nowMs() / 1000)
    await give(here, TRIAGE, nowS + 100)
    await give(here, TRIAGE, nowS + 10)
    await give(here)
    expect(here.blocks()).toMatchObject([{ untilS: nowS + 100 }])
    clock.advance(101_000)
    expect(here.blocks()).toEqual([])
  })

  it('that is over is forgotten in the end, everywhere', async () => {
    const here = replica({ file: 'over' })
    await give(here, { service: 'github' }, Math.floor(clock.nowMs() / 1000) + 10)
    clock.advance(8 * 86_400_000)
    await give(here, TRIAGE)
    expect(shelf.bodies.size).toBe(1)
  })

  it('that is over is forgotten also by replicas that came later', async () => {
    await give(replica(), { service: 'github' }, Math.floor(clock.nowMs() / 1000) + 10)
    clock.advance(8 * 86_400_000)
    await give(replica())
    expect(shelf.bodies.size).toBe(1)
  })

  it('is not forgotten with one before it about the same that is over', async () => {
    const [here, there] = [replica(), replica()]
    await give(here)
    clock.advance(8 * 86_400_000)
    shelf.atForget = () => {
      shelf.atForget = undefined
      return give(there, TRIAGE, null) // between what was read and what is forgotten
    }
    await give(here, { agent: billing.id })
    const late = replica()
    await heard(late)
    expect(late.blocks()).toMatchObject([{ target: TRIAGE }])
  })
})

describe('many orders', () => {
  it('keep nobody from giving another one', async () => {
    const inForce = new InForce()
    const sinceS = Math.floor(clock.nowMs() / 1000)
    for (let n = 0; n < 200_000; n += 1)
      inForce.take({ id: '', reason: '', sinceS, version: n, keptUntilS: sinceS + 60, target: { agent: `${n}` } })
    const parts = { tenant: 'acme', store: shelf, clock, onChange: () => {} }
    const exchange = new OrderExchange(parts, { inForce, seal: createOrderSeal('acme', key) })
    shelf.isAway = true
    const order = {
      id: uuidv7(),
      target: { everything: true } as const,
      reason: '',
      untilS: null,
      keptUntilS: sinceS + 60,
    }
    await expect(exchange.change(order, false)).rejects.toMatchObject({ code: 'store_unavailable' })
    expect(inForce.blocks(sinceS)).toHaveLength(1)
  })

  it('are opened once each, not at every look', async () => {
    const seal = createOrderSeal('acme', key)
    let opened = 0
    const counting = {
      ...seal,
      open(stored: StoredOrder) {
        opened += 1
        return seal.open(stored)
      },
    }
    for (let n = 0; n < 20; n += 1) await give(replica(), { agent: `${n}` })
    const exchange = new OrderExchange(
      { tenant: 'acme', store: shelf, clock, onChange: () => {} },
      { inForce: new InForce(), seal: counting },
    )
    for (let n = 0; n < 5; n += 1) await exchange.sync()
    expect(opened).toBe(20)
    const [[about] = ['']] = [...shelf.bodies]
    shelf.bodies.set(about, 'forged')
    await exchange.sync()
    expect(shelf.bodies.get(about), 'what was forged is replaced').not.toBe('forged')
  })
})

const DEEDS = ['give', 'block', 'lift', 'issue', 'hear', 'lose', 'wait'] as const
type Step = { readonly at: number; readonly deed: (typeof DEEDS)[number] }

/** Three replicas whose clocks differ by up to a minute. */
function fleet() {
  shelf = new Shelf()
  clock = manualClock()
  const clocks = [0, 2_000, 60_000].map((ms) => {
    const its = manualClock()
    its.advance(ms)
    return its
  })
  return { clocks, replicas: clocks.map((its) => replica({ clock: its })) }
}

/** @returns grants that were issued before the last order, and after it. */
async function play(steps: readonly Step[], { clocks, replicas }: ReturnType<typeof fleet>) {
  let before: Grant[] = []
  let after: Grant[] = []
  const order = async (here: Orders, untilS?: null) => {
    before = [...before, ...after]
    after = []
    await give(here, TRIAGE, untilS)
  }
  const deeds: Record<Step['deed'], (here: Orders) => unknown> = {
    give: (here) => order(here),
    block: (here) => order(here, null),
    lift: (here) => (here.blocks().length > 0 ? lift(here) : undefined),
    issue: async (here) => after.push(await issued(here)),
    hear: (here) => heard(here),
    lose: () => shelf.lose(),
    wait: () => {
      for (const its of clocks) its.advance(500)
    },
  }
  for (const { at, deed } of steps) await deeds[deed](replicas[at] as Orders)
  return { before, after }
}

async function settle(replicas: readonly Orders[]): Promise<void> {
  for (const one of [...replicas, ...replicas]) {
    one.look()
    await new Promise(setImmediate)
    await one.current()
  }
}

it('whatever happens in whatever order, at last all replicas agree, and nothing lives that was issued before the last order (property)', async () => {
  const step = fc.record({ at: fc.nat(2), deed: fc.constantFrom(...DEEDS) })
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      const made = fleet()
      const { before, after } = await play(steps, made)
      await settle(made.replicas)
      const verdicts = made.replicas.map((one) => ({
        blocks: one.blocks().map(({ untilS }) => untilS),
        before: before.map((grant) => one.endOf(grant) !== undefined),
        after: after.map((grant) => one.endOf(grant) !== undefined),
      }))
      expect(new Set(verdicts.map((verdict) => JSON.stringify(verdict))).size).toBe(1)
      expect(verdicts[0]?.before.every(Boolean)).toBe(true)
      for (const one of open) one.close()
      open = []
    }),
    { numRuns: 150 },
  )
})
