import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseAuthority } from '../../gateway/protocol/target.ts'
import { isDialable, isDisguisedAddress } from '../../gateway/upstream/address.ts'

/**
 * IANA IPv4 Special-Purpose Address Registry (RFC 6890, 7335, 7450, 7534, 7535, 7600, 8155, 8190): is it globally reachable?
 * Multicast (RFC 5771) has a registry of its own.
 */
const V4: readonly (readonly [string, boolean])[] = [
  ['0.0.0.0/8', false],
  ['10.0.0.0/8', false],
  ['100.64.0.0/10', false],
  ['127.0.0.0/8', false],
  ['169.254.0.0/16', false],
  ['172.16.0.0/12', false],
  ['192.0.0.0/24', false],
  ['192.0.0.0/29', false],
  ['192.0.0.8/32', false],
  ['192.0.0.9/32', true], // Port Control Protocol anycast
  ['192.0.0.10/32', true], // TURN anycast
  ['192.0.0.170/31', false],
  ['192.0.2.0/24', false],
  ['192.31.196.0/24', true], // AS112
  ['192.52.193.0/24', true], // AMT
  ['192.88.99.0/24', false],
  ['192.168.0.0/16', false],
  ['192.175.48.0/24', true], // AS112
  ['198.18.0.0/15', false],
  ['198.51.100.0/24', false],
  ['203.0.113.0/24', false],
  ['224.0.0.0/4', false],
  ['240.0.0.0/4', false],
  ['255.255.255.255/32', false],
]

/** IANA IPv6 Special-Purpose Address Registry (RFC 6890, 7723, 8190, 8215, 9374, 9602, 9637, 9780, …) and global unicast, 2000::/3. */
const V6: readonly (readonly [string, boolean])[] = [
  ['0:0:0:0:0:0:0:0/0', false],
  ['2000:0:0:0:0:0:0:0/3', true],
  ['64:ff9b:1:0:0:0:0:0/48', false],
  ['100:0:0:0:0:0:0:0/64', false],
  ['100:0:0:1:0:0:0:0/64', false],
  ['2001:0:0:0:0:0:0:0/23', false],
  ['2001:1:0:0:0:0:0:1/128', true], // PCP anycast
  ['2001:1:0:0:0:0:0:2/128', true], // TURN anycast
  ['2001:1:0:0:0:0:0:3/128', true], // DNS-SD SRP anycast
  ['2001:2:0:0:0:0:0:0/48', false],
  ['2001:3:0:0:0:0:0:0/32', true], // AMT
  ['2001:4:112:0:0:0:0:0/48', true], // AS112
  ['2001:10:0:0:0:0:0:0/28', false],
  ['2001:20:0:0:0:0:0:0/28', true], // ORCHIDv2: identifiers
  ['2001:30:0:0:0:0:0:0/28', true], // drone identifiers
  ['2001:db8:0:0:0:0:0:0/32', false],
  ['2620:4f:8000:0:0:0:0:0/48', true], // AS112
  ['3fff:0:0:0:0:0:0:0/20', false],
  ['5f00:0:0:0:0:0:0:0/16', false],
  ['fc00:0:0:0:0:0:0:0/7', false],
  ['fe80:0:0:0:0:0:0:0/10', false],
  ['ff00:0:0:0:0:0:0:0/8', false],
]

/** Refused although the registries have them as reachable: no API is there, or a cloud gives out credentials there. */
const STRICTER = ['192.0.0.0/24', '168.63.129.16/32', '2001:0:0:0:0:0:0:0/23']

interface Range {
  readonly base: bigint
  readonly bits: number
  readonly width: 32 | 128
  readonly isReachable: boolean
}

const ranges = [...V4, ...V6].map(([cidr, isReachable]) => rangeOf(cidr, isReachable))
const stricter = STRICTER.map((cidr) => rangeOf(cidr, false))

function rangeOf(cidr: string, isReachable: boolean): Range {
  const [text = '', bits] = cidr.split('/')
  const isV6 = text.includes(':')
  const words = text.split(isV6 ? ':' : '.').map((word) => BigInt(isV6 ? `0x${word}` : word))
  const base = words.reduce((sum, word) => (sum << (isV6 ? 16n : 8n)) | word, 0n)
  return { base, bits: Number(bits), width: isV6 ? 128 : 32, isReachable }
}

const holds = ({ base, bits, width }: Range, value: bigint) =>
  base >> BigInt(width - bits) === value >> BigInt(width - bits)

function byTable(value: bigint, width: 32 | 128): boolean {
  const [found] = ranges.filter((range) => range.width === width && holds(range, value)).sort((a, b) => b.bits - a.bits)
  return (found?.isReachable ?? true) && !stricter.some((range) => range.width === width && holds(range, value))
}

const v4 = (value: bigint) => byTable(value & 0xffffffffn, 32)

/** What the tables say, of an address that carries others by the worst of them. */
function mayBeDialled(value: bigint): boolean {
  const high = value >> 32n
  if (high === 0xffffn || high === 0x64ff9bn << 64n) return v4(value) // mapped; NAT64
  if (value >> 112n === 0x2002n) return v4(value >> 80n) // 6to4
  if (value >> 96n === 0x20010000n) return v4(value >> 64n) && v4(~value) // Teredo: server and client
  const isIsatap = [0x00005efen, 0x02005efen].includes(high & 0xffffffffn)
  return byTable(value, 128) && (!isIsatap || v4(value))
}

const dotted = (value: bigint) => [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn).join('.')
const colons = (value: bigint) =>
  Array.from({ length: 8 }, (_, i) => ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16)).join(':')

/** Around the edges of every range, and anywhere. */
function near(width: 32 | 128): fc.Arbitrary<bigint> {
  const max = (1n << BigInt(width)) - 1n
  const anywhere = fc.bigInt({ min: 0n, max })
  const edges = [...ranges, ...stricter]
    .filter((range) => range.width === width)
    .flatMap(({ base, bits }) => {
      const last = base + (1n << BigInt(width - bits)) - 1n
      return [base - 1n, base, base + 1n, last - 1n, last, last + 1n].filter((value) => value >= 0n && value <= max)
    })
  const within = fc
    .tuple(fc.constantFrom(...ranges.filter((range) => range.width === width)), anywhere)
    .map(([{ base, bits }, any]) => base | (any & ((1n << BigInt(width - bits)) - 1n)))
  return fc.oneof(anywhere, fc.constantFrom(...edges), within)
}

/** An IPv4 address inside IPv6, every way there is. */
const carried = fc
  .tuple(near(32), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }))
  .chain(([inner, any]) =>
    fc.constantFrom(
      (0xffffn << 32n) | inner,
      (0x64ff9bn << 96n) | inner,
      (0x2002n << 112n) | (inner << 80n) | any,
      (0x20010000n << 96n) | (inner << 64n) | any,
      (0x20010000n << 96n) | (0x08080808n << 64n) | (any & 0xffffffff00000000n) | (~inner & 0xffffffffn),
      (0x26064700n << 96n) | ((any << 64n) & (0xffffffffn << 64n)) | (0x5efen << 32n) | inner,
      inner,
    ),
  )

const RUNS = { numRuns: 4_000 }

describe('what may be dialled without a range is what IANA has as globally reachable', () => {
  it('of all IPv4 addresses', () => {
    fc.assert(
      fc.property(near(32), (value) => {
        expect(isDialable(dotted(value), []), dotted(value)).toBe(v4(value))
      }),
      RUNS,
    )
  })

  it('of all IPv6 addresses, and those that carry IPv4', () => {
    fc.assert(
      fc.property(fc.oneof(near(128), carried), (value) => {
        expect(isDialable(colons(value), []), colons(value)).toBe(mayBeDialled(value))
      }),
      RUNS,
    )
  })
})

/** Ways in which one reader or another takes a text for an IPv4 address. */
const spelled = fc
  .tuple(
    near(32),
    fc.array(fc.constantFrom(8, 10, 16), { minLength: 4, maxLength: 4 }),
    fc.integer({ min: 1, max: 4 }),
    fc.constantFrom('', '.', '..', '%00', '%25eth0', ' '),
    fc.constantFrom<(text: string) => string>(
      (text) => text,
      (text) => text.toUpperCase(),
      (text) => text.replaceAll('.', '。'),
      (text) => text.replaceAll('.', '%2e'),
      (text) => text.replaceAll(/\d/g, (digit) => String.fromCharCode(0xff10 + Number(digit))),
      (text) => text.replace(/\d/, (digit) => `%3${digit}`),
      (text) => `[${text}]`,
      (text) => `[::ffff:${text}]`,
      (text) => `[::${text}]`,
      (text) => `[64:ff9b::${text}]`,
      (text) => `user@${text}`,
      (text) => `0${text}`,
      (text) => `00x${text}`,
      (text) => `${text}_`,
    ),
  )
  .map(([value, bases, parts, tail, disguise]) => {
    const octets = [24n, 16n, 8n, 0n].map((shift) => (value >> shift) & 0xffn)
    const rest = octets.slice(parts - 1).reduce((sum, octet) => (sum << 8n) | octet, 0n)
    const words = [...octets.slice(0, parts - 1), rest].map((word, i) => {
      const base = bases[i] ?? 10
      return `${base === 16 ? '0x' : base === 8 ? '0' : ''}${word.toString(base)}`
    })
    return { value, text: disguise(words.join('.')) + tail }
  })

it('no spelling of a forbidden address gets past as a public one, or as a name to look up', () => {
  fc.assert(
    fc.property(spelled, ({ value, text }) => {
      let host: string
      try {
        host = parseAuthority(text, 443).host
      } catch {
        return // refused at the door
      }
      const isLiteral = /^[\d.]+$/.test(host) || host.includes(':')
      // What is left is a dotted quad or IPv6 literal, judged as such; a number in disguise, refused; or a name to every reader.
      const isName = URL.parse(`http://${host}/`)?.hostname === host
      if (!isLiteral) expect(isName || isDisguisedAddress(host), `${text} → ${host}`).toBe(true)
      else if (!v4(value)) expect(isDialable(host, []), `${text} → ${host}`).toBe(false)
    }),
    RUNS,
  )
})

it.each(['localhost', 'LOCALHOST', 'localhost.'])('%s is a name, and is judged by what it resolves to', (text) => {
  expect(parseAuthority(text, 80).host).toBe('localhost')
})
