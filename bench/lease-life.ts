/**
 * An hour of leases on a clock that is wound by hand: how many calls find their credential, and how an issuer is asked when many
 * credentials end at once. The lease room is the real one; agents and issuer are not.
 */
import { createSecretKey, randomBytes } from 'node:crypto'
import type { LeaseCache } from '../gateway/lease/cache.ts'
import { createMemoryCache } from '../gateway/lease/cache-memory.ts'
import { createLeases, type Leases } from '../gateway/lease/leases.ts'
import type { Permit } from '../gateway/policy/decision.ts'
import type { Provider } from '../gateway/provider/provider.ts'
import {
  type CountingProvider,
  countingProvider,
  type FakeClock,
  fakeClock,
  grant,
  permit,
  receipt,
  service,
} from '../test/lease/lease.fixture.ts'
import { row } from './timing.ts'

/** Agents that always have a task, of 5 to 15 minutes; each calls every 5 s on average, the n-th service 1/n as often as the first. */
export const MIX = {
  agents: 200,
  seconds: 3600,
  callsPerS: 0.2,
  taskS: [300, 900],
  replicas: 2,
  singleUse: 0.02,
} as const
/** Seconds that the credentials of each service live. */
const LIVES = [3600, 900, 300, 3600, 600, 3600, 300, 900] as const
export const STORM = { agents: 1000, lifeS: 300, answerMs: 20 } as const

const random = seeded(6)
const ticks = async (n: number) => {
  for (let i = 0; i < n; i++) await new Promise(setImmediate)
}

interface Counted {
  calls: number
  near: number
  far: number
  waited: number
}

/** Every replica sees the same cache, as with Redis; a call goes to any of them. */
export async function mixTable(): Promise<string[]> {
  const rows: string[] = []
  for (const [name, singleUse] of [
    ['without single-use operations', 0],
    [`with ${MIX.singleUse * 100} % single-use operations`, MIX.singleUse],
  ] as const)
    rows.push(await mix(name, singleUse))
  return [
    '| An hour | calls | found in this process | found with the other replica | waited for the issuer | token calls, renewals with them |',
    '|---|--:|--:|--:|--:|--:|',
    ...rows,
  ]
}

async function mix(name: string, singleUseShare: number): Promise<string> {
  const clock = fakeClock()
  const issuers = LIVES.map((lifeS) => countingProvider(clock, { lifeS, revocable: false }))
  const services = LIVES.map((_, i) => service({ name: `service-${i}`, credential: `service-${i}` }))
  const providers = new Map<string, Provider>(issuers.map((issuer, i) => [`service-${i}`, issuer]))
  const memory = createMemoryCache({ clock, maxEntries: 100_000 })
  const cache = asShared(memory)
  const common = { providers, cache, sealKey: createSecretKey(randomBytes(32)), clock, record: async () => undefined }
  const replicas = Array.from({ length: MIX.replicas }, () => createLeases({ ...common, random }))
  const counted: Counted = { calls: 0, near: 0, far: 0, waited: 0 }
  const agents = Array.from({ length: MIX.agents }, () => ({ grant: taskFrom(clock.nowMs(), random()) }))
  for (let second = 0; second < MIX.seconds; second++) {
    const nowMs = clock.nowMs()
    for (const agent of agents) {
      if (agent.grant.expiresAt * 1000 <= nowMs) agent.grant = taskFrom(nowMs, 1)
      if (random() >= MIX.callsPerS) continue
      const to = services[zipf(LIVES.length)]
      const singleUse = random() < singleUseShare
      const asked = permit({ grant: agent.grant, ...(to && { service: to }), singleUse })
      await count(replicas[Math.floor(random() * MIX.replicas)] as Leases, asked, counted)
    }
    clock.advance(1000)
    await ticks(4) // renewals
  }
  await Promise.all(replicas.map((one) => one.close()))
  const share = (part: number) => `${((100 * part) / counted.calls).toFixed(1)} %`
  const tokens = issuers.reduce((sum, issuer) => sum + issuer.requests.length, 0)
  const { calls, near, far, waited } = counted
  return row(name, calls.toLocaleString('en'), share(near), share(far), share(waited), tokens.toLocaleString('en'))
}

async function count(leases: Leases, asked: Permit, counted: Counted): Promise<void> {
  counted.calls++
  const lease = leases.acquire(asked, receipt)
  if (!(lease instanceof Promise)) counted.near++
  else if ((await lease).facts.cache === 'hit') counted.far++
  else counted.waited++
}

/** @param part of it that is still to come: at the start, agents are in the middle of their tasks. */
function taskFrom(nowMs: number, part: number) {
  const [least, most] = MIX.taskS
  const expiresAt = nowMs / 1000 + Math.ceil(part * (least + random() * (most - least)))
  return grant({ expiresAt, issuedAt: nowMs / 1000 })
}

/** One cache as several replicas have it, of which none can close it for the others. */
function asShared(cache: LeaseCache): LeaseCache {
  return new Proxy(cache, {
    get(at, name) {
      if (name === 'isShared') return true
      if (name === 'close') return async () => undefined
      const method = Reflect.get(at, name)
      return typeof method === 'function' ? method.bind(at) : method
    },
  })
}

/** A thousand credentials issued in one second, that end in one second. */
export async function stormTable(): Promise<string[]> {
  return [
    `| ${STORM.agents.toLocaleString('en')} credentials that end in one second | token calls | most in a second | at once | over |`,
    '|---|--:|--:|--:|--:|',
    row(
      'were renewed at three quarters of their life, all the same, without turns',
      STORM.agents,
      STORM.agents,
      STORM.agents,
      '1 s',
    ),
    await storm('are renewed: agents that call all the time', 0),
    await storm('are renewed: agents that are silent until four fifths, and then call in one second', 0.8),
    await storm('were let end: agents that are silent until after, and then call in one second', 1.1),
  ]
}

/** @param silentFor part of the life in which nobody calls. */
async function storm(name: string, silentFor: number): Promise<string> {
  const clock = fakeClock()
  const issuer = countingProvider(clock, { lifeS: STORM.lifeS })
  const leases = createLeases({
    ...{ providers: new Map([['billing', issuer]]), cache: createMemoryCache({ clock }), random, clock },
    ...{ sealKey: createSecretKey(randomBytes(32)), record: async () => undefined },
  })
  const to = service()
  const permits = Array.from({ length: STORM.agents }, () =>
    permit({ service: to, grant: grant({ expiresAt: clock.nowMs() / 1000 + 3600 }) }),
  )
  await Promise.all(permits.map((one) => leases.acquire(one, receipt)))
  const seen = slowly(issuer, clock)
  const issued = issuer.requests.length
  clock.advance(silentFor * STORM.lifeS * 1000)
  const perSecond: number[] = []
  while (issuer.requests.length < 2 * issued) {
    const before = issuer.requests.length
    for (const one of permits) Promise.resolve(leases.acquire(one, receipt)).catch(() => undefined)
    for (let ms = 0; ms < 1000; ms += STORM.answerMs) await seen.step()
    perSecond.push(issuer.requests.length - before)
  }
  while (leases.state.issuers.some(({ underway, waiting }) => underway + waiting > 0)) await seen.step()
  await leases.close()
  const busy = perSecond.filter((n) => n > 0).length
  return row(name, issuer.requests.length - issued, Math.max(...perSecond), seen.most, `${busy} s`)
}

interface Slow {
  /** Requests that were under way together. */
  readonly most: number
  /** As long as an answer takes: what was asked before is answered. */
  step(): Promise<void>
}

function slowly(issuer: CountingProvider, clock: FakeClock): Slow {
  const answer = issuer.next
  const waiting: (() => void)[] = []
  const seen = {
    most: 0,
    async step() {
      clock.advance(STORM.answerMs)
      for (const go of waiting.splice(0)) go()
      await ticks(5)
    },
  }
  issuer.next = async (request, signal) => {
    const turn = new Promise<void>((go) => waiting.push(go))
    seen.most = Math.max(seen.most, waiting.length)
    await turn
    return answer(request, signal)
  }
  return seen
}

/** The n-th of them 1/n as often as the first. */
function zipf(count: number): number {
  const weights = Array.from({ length: count }, (_, i) => 1 / (i + 1))
  let left = random() * weights.reduce((sum, one) => sum + one, 0)
  for (const [i, weight] of weights.entries()) {
    left -= weight
    if (left < 0) return i
  }
  return 0
}

/** Mulberry32: the same mix in every run. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
