/** What is done, recorded and remembered of a security event token, in which order, and what a crash or a failing part between leaves. */
import { beforeEach, expect, it } from 'vitest'
import type { Signal } from '../../gateway/identity/set.ts'
import { type ActingSource, createSignalDesk, type SignalDesk } from '../../gateway/identity/signals.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import type { RevocationOrder } from '../../gateway/protocol/revocation.ts'
import { manualClock } from '../rig/clock.ts'

const source: ActingSource = {
  issuer: 'https://id.acme.test',
  jwks: { file: '/none' },
  addresses: [],
  audience: ['keyless'],
  algorithms: ['ES256'],
  may: ['human'],
  humans: ['https://id.acme.test'],
  email_is_sub: false,
  actions: {},
  max_age_s: 600,
  clock_skew_s: 30,
  block_s: 60,
  per_minute: 5,
}

const clock = manualClock()
let steps: string[]
let orders: RevocationOrder[]
let seen: Map<string, number>
/** Step that fails now. */
let broken: string | undefined
let signal: Signal<ActingSource>
let desk: SignalDesk

function step(name: string): void {
  steps.push(name)
  if (name === broken) throw new GatewayError('store_unavailable', 'Not now.')
}

function signalOf(more: Partial<Signal<ActingSource>> = {}): Signal<ActingSource> {
  const events = [{ name: 'session-revoked', action: 'end', reason: undefined }] as const
  const target = { human: { iss: source.issuer, sub: 'ana' } }
  return { source, jti: 'one', issuedAt: Math.floor(clock.nowMs() / 1000), events, target, ...more }
}

beforeEach(() => {
  steps = []
  orders = []
  seen = new Map()
  broken = undefined
  signal = signalOf()
  desk = createSignalDesk<ActingSource>({
    reader: { sourceOf: () => source, verify: async () => signal },
    async order(order) {
      step('order')
      orders.push(order)
      return { id: 'order', grants: 1 }
    },
    lift: async () => step('lift'),
    received: async ({ action }) => step(`record ${action}`),
    refused: async () => step('refused'),
    seen: {
      has: async (name) => seen.has(name),
      async add(name, untilS) {
        step('remember')
        seen.set(name, untilS)
      },
    },
    clock,
  })
})

it('ends, records, remembers, and after that does nothing', async () => {
  await desk.take('token')
  await desk.take('token')
  expect(steps).toEqual(['order', 'record end', 'remember'])
})

it.each(['order', 'record end', 'remember'])(
  'does it all again when %s failed, and never takes it for done',
  async (name) => {
    broken = name
    await expect(desk.take('token')).rejects.toMatchObject({ code: 'store_unavailable' })
    broken = undefined
    steps = []
    await desk.take('token')
    expect(steps).toEqual(['order', 'record end', 'remember'])
  },
)

it('remembers a token for as long as it could be taken', async () => {
  await desk.take('token')
  const [untilS = 0] = seen.values()
  expect(untilS).toBeGreaterThanOrEqual(signal.issuedAt + source.max_age_s + source.clock_skew_s)
})

it('carries out the strongest of several events, once', async () => {
  const event = (name: string, action: 'note' | 'end' | 'block') => ({ name, action, reason: 'lost' })
  signal = signalOf({
    events: [event('x', 'note'), event('session-revoked', 'end'), event('account-disabled', 'block')],
  })
  await desk.take('token')
  const untilS = Math.floor(clock.nowMs() / 1000) + source.block_s
  expect(orders).toMatchObject([
    { reason: 'account-disabled: lost', untilS, by: { signal: { issuer: source.issuer, issuedAt: signal.issuedAt } } },
  ])
})

it('takes what is about nobody whom it knows: it would be no other the next time', async () => {
  signal = signalOf({ target: 'it has no sub_id' })
  await desk.take('token')
  expect(steps).toEqual(['record end', 'remember'])
})

it('asks for more time in a storm, and hears the issuer again a minute later', async () => {
  for (let n = 0; n < source.per_minute; n += 1) {
    signal = signalOf({ jti: `storm ${n}` })
    await desk.take('token')
  }
  signal = signalOf({ jti: 'one more' })
  await expect(desk.take('token')).rejects.toMatchObject({ code: 'too_many_requests', retryAfterMs: 60_000 })
  clock.advance(60_000)
  await desk.take('token')
  expect(orders).toHaveLength(source.per_minute + 1)
})
