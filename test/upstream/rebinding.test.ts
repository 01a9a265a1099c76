import { Resolver } from 'node:dns/promises'
import { createServer, type Server } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { createDial, type DialOptions } from '../../gateway/upstream/dial.ts'
import { type Answer, type NameServer, type Question, type Reaction, startNameServer } from '../rig/dns.ts'
import { shut } from './upstream.fixture.ts'

/** Loopback stands for the network: this part of it is what the service may reach, all else is forbidden. */
const ALLOWED = ['127.0.1.0/24']
const GOOD = '127.0.1.1'
const SPARE = '127.0.1.2'
const TRAP = '127.0.0.99'

let names: NameServer
let react: (question: Question) => Reaction
/** Listens on every address, on one port: what is dialled at all is seen, whether meant or not. */
let trap: Server
let port: number
/** Local address of each connection that reached it. */
const reached: string[] = []

beforeEach(async () => {
  reached.length = 0
  names = await startNameServer((question) => react(question))
  trap = createServer((socket) => {
    reached.push(socket.localAddress?.replace('::ffff:', '') ?? '')
    socket.on('error', () => {}).resume()
  })
  await new Promise<void>((resolve) => trap.listen(0, '::', resolve))
  port = (trap.address() as { port: number }).port
})
afterEach(async () => {
  await shut(trap)
  await names.close()
})

/** Real questions over real packets, asked anew for every dial. */
function resolveBy(server: string): NonNullable<DialOptions['resolve']> {
  return async (host) => {
    const resolver = new Resolver({ timeout: 300, tries: 1 })
    resolver.setServers([server])
    const found = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)])
    const addresses = found.flatMap((one) => (one.status === 'fulfilled' ? one.value : []))
    const [failed] = found.filter((one) => one.status === 'rejected')
    if (addresses.length === 0 && failed !== undefined) throw failed.reason
    return addresses
  }
}

async function dial(host: string, allowed: readonly string[] = ALLOWED): Promise<string> {
  const open = createDial({
    connectTimeoutMs: 1_000,
    ca: [],
    hosts: new Map(),
    clock: systemClock,
    resolve: resolveBy(names.address),
  })
  const { socket, address } = await open({ scheme: 'http', host, port, allowed }, new AbortController().signal)
  socket.destroy()
  return address
}

const a = (address: string): Answer => ({ type: 'A', address })
const aaaa = (address: string): Answer => ({ type: 'AAAA', address })
const only =
  (type: Question['type'], ...answers: Answer[]) =>
  (question: Question) =>
    question.type === type ? answers : []

describe('a name server that changes its answer', () => {
  it('is asked once for each connection, and what it said then is dialled', async () => {
    react = ({ type, asked }) => (type === 'AAAA' ? [] : [a(asked === 0 ? GOOD : TRAP)])
    expect(await dial('rebind.test')).toBe(GOOD)
    expect(names.questions.filter(({ type }) => type === 'A')).toHaveLength(1)
    expect(reached).toEqual([GOOD])
    await expect(dial('rebind.test')).rejects.toMatchObject({ code: 'address_forbidden' })
    expect(reached).toEqual([GOOD])
  })

  it('gets nowhere by changing it all the time', async () => {
    react = ({ type, asked }) => (type === 'AAAA' ? [] : [a(asked % 2 === 0 ? GOOD : TRAP)])
    const all = await Promise.allSettled(Array.from({ length: 40 }, () => dial('flipping.test')))
    expect(new Set(reached)).toEqual(new Set([GOOD]))
    for (const one of all)
      if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'address_forbidden' })
  })
})

describe('an answer', () => {
  it.each<[string, (question: Question) => Reaction]>([
    ['with a forbidden address among good ones', only('A', a(GOOD), a(TRAP))],
    ['with a forbidden address before good ones', only('A', a(TRAP), a(GOOD))],
    ['with a good A and a bad AAAA', ({ type }) => (type === 'A' ? [a(GOOD)] : [aaaa('::1')])],
    ['with a good A and a mapped AAAA', ({ type }) => (type === 'A' ? [a(GOOD)] : [aaaa('::ffff:127.0.0.99')])],
    ['with a good A and a translated AAAA', ({ type }) => (type === 'A' ? [a(GOOD)] : [aaaa('64:ff9b::7f00:63')])],
    ['with a metadata address', only('A', a('169.254.169.254'))],
    ['with no place at all', only('A', a('0.0.0.0'))],
    ['with nowhere in IPv6', only('AAAA', aaaa('::'))],
    [
      'with an alias of an internal name',
      only('A', { type: 'CNAME', to: 'db.internal' }, { ...a('10.0.0.7'), name: 'db.internal' }),
    ],
    [
      'with aliases of aliases',
      only(
        'A',
        { type: 'CNAME', to: 'b.test' },
        { type: 'CNAME', name: 'b.test', to: 'c.test' },
        { ...a(TRAP), name: 'c.test' },
      ),
    ],
    [
      'that comes over TCP',
      ({ type, transport }) => (type === 'AAAA' ? [] : transport === 'udp' ? 'truncated' : [a(TRAP)]),
    ],
  ])('%s opens no socket', async (_what, answers) => {
    react = answers
    await expect(dial('mixed.test')).rejects.toMatchObject({ code: 'address_forbidden' })
    expect(reached).toEqual([])
  })

  it('over TCP, for one that did not fit, is as good as any', async () => {
    const many = Array.from({ length: 60 }, (_, i) => a(`127.0.1.${i + 1}`))
    react = ({ type, transport }) => (type === 'AAAA' ? [] : transport === 'udp' ? 'truncated' : many)
    expect(await dial('large.test')).toMatch(/^127\.0\.1\./)
    expect(names.questions.map(({ transport }) => transport)).toContain('tcp')
  })

  it('opens only what a range names, and metadata not even then', async () => {
    react = only('A', a('169.254.169.254'))
    await expect(dial('any.test', ['0.0.0.0/0', '::/0'])).rejects.toMatchObject({ code: 'address_forbidden' })
    react = only('AAAA', aaaa('::ffff:169.254.169.254'))
    await expect(dial('any.test', ['0.0.0.0/0', '::/0'])).rejects.toMatchObject({ code: 'address_forbidden' })
    expect(reached).toEqual([])
  })

  it('that never comes, or says that there is no such name, is no reason to try anything', async () => {
    react = () => 'silence'
    await expect(dial('silent.test')).rejects.toMatchObject({
      code: expect.stringMatching(/upstream_(?:timeout|unresolved)/),
    })
    react = () => 'unknown'
    await expect(dial('absent.test')).rejects.toMatchObject({ code: 'upstream_unresolved' })
    expect(reached).toEqual([])
  })
})

it('the next address is tried when one does not answer', async () => {
  await shut(trap)
  trap = createServer((socket) => {
    reached.push(socket.localAddress ?? '')
    socket.on('error', () => {}).resume()
  })
  await new Promise<void>((resolve) => trap.listen(port, SPARE, resolve))
  react = only('A', a(GOOD), a(SPARE))
  expect(await dial('half.test')).toBe(SPARE)
  expect(reached).toEqual([SPARE])
})

it.each([
  'metadata.google.internal',
  'metadata.goog',
  'instance-data',
  'metadata',
  '2130706433',
  '0x7f.1',
  '127.1',
  '017700000001',
])('%s is never asked for', async (host) => {
  react = only('A', a(GOOD))
  await expect(dial(host)).rejects.toMatchObject({ code: 'address_forbidden' })
  expect(names.questions).toEqual([])
  expect(reached).toEqual([])
})
