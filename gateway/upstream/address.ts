/**
 * Decides which IP addresses may be dialled (standards.md H1): the IANA special-purpose registries, addresses embedded in
 * others, and cloud metadata services. Pure: no resolver, no clock. Addresses come from DNS and are attacker-controlled
 * until `isDialable` has seen every one of them.
 */
import ipaddr from 'ipaddr.js'
import { type AddressClass, METADATA, METADATA_NAMES, type Row, SPECIAL_V4, SPECIAL_V6 } from './special-addresses.ts'

type Address = ipaddr.IPv4 | ipaddr.IPv6
type Range = readonly [network: Address, bits: number, kind: AddressClass]

/** Kinds that no setting opens. Clouds put ever new sources of credentials into the link-local ranges, and no API is there. */
const NEVER: ReadonlySet<AddressClass> = new Set(['invalid', 'metadata', 'link-local'])

const metadata = METADATA.map(compile)
const special4 = SPECIAL_V4.map(compile)
const special6 = SPECIAL_V6.map(compile)

/** From most to least dangerous; of several addresses in one, the worst counts. */
const SEVERITY: readonly AddressClass[] = [
  'invalid',
  'metadata',
  'loopback',
  'link-local',
  'private',
  'cgnat',
  'multicast',
  'reserved',
  'public',
]

/**
 * What kind of place an address is. An IPv6 address that carries an IPv4 address (mapped, translated, NAT64, 6to4, Teredo)
 * is judged by what it carries. Zone ids and anything that is not one strict IP literal are `invalid`.
 */
export function classifyAddress(ip: string): AddressClass {
  const address = parseStrict(ip)
  return address === undefined ? 'invalid' : classify(address)
}

/** Whether a host name, lower case, is that of a metadata service, or of a zone of them. */
export function isMetadataName(host: string): boolean {
  const name = host.replace(/\.$/, '')
  return METADATA_NAMES.has(name) || name.endsWith('.metadata.google.internal')
}

/** Whether no setting opens this address: metadata services, link-local ranges, and what is no address. */
export function isNeverDialled(ip: string): boolean {
  return NEVER.has(classifyAddress(ip))
}

/**
 * May this address be dialled: public, or inside one of a service's CIDR ranges. Metadata services and link-local ranges never are.
 * @throws {Error} when a range in `allowed` is not a CIDR; settings check that when they load.
 */
export function isDialable(ip: string, allowed: readonly string[]): boolean {
  const address = parseStrict(ip)
  if (address === undefined) return false
  const kind = classify(address)
  if (kind === 'public') return true
  if (NEVER.has(kind)) return false
  const plain = unmapped(address)
  return allowed.some((cidr) => contains(parseCidr(cidr), plain))
}

/**
 * Is this host a number to some resolvers although it is no IP literal: `2130706433`, `0x7f.1`, `0177.0.0.1`, `1.2.3`
 * (WHATWG URL "ends in a number")? Such a host is refused, never looked up.
 */
export function isDisguisedAddress(host: string): boolean {
  if (ipaddr.IPv4.isValidFourPartDecimal(host) && parseStrict(host) !== undefined) return false
  if (host.includes(':')) return parseStrict(host) === undefined
  const labels = host.replace(/\.$/, '').split('.')
  return /^(?:\d+|0x[\da-f]*)$/i.test(labels[labels.length - 1] ?? '')
}

function parseStrict(ip: string): Address | undefined {
  if (ip.includes('%') || ip.includes('/')) return undefined // a zone id would choose an interface
  const colon = ip.lastIndexOf(':')
  const quad = ip.includes('.') ? parseQuad(ip.slice(colon + 1)) : undefined
  if (colon === -1) return quad
  if (ip.includes('.') && quad === undefined) return undefined
  // ipaddr.js reads `::1.2.3.4` as if it were mapped; written in hexadecimal there is only one reading.
  const hex = quad === undefined ? ip : ip.slice(0, colon + 1) + hexadecimal(quad.octets)
  return ipaddr.IPv6.isValid(hex) ? ipaddr.IPv6.parse(hex) : undefined
}

function parseQuad(text: string): ipaddr.IPv4 | undefined {
  const isStrict = /^(?:(?:0|[1-9]\d{0,2})\.){3}(?:0|[1-9]\d{0,2})$/.test(text)
  return isStrict && ipaddr.IPv4.isValidFourPartDecimal(text) ? ipaddr.IPv4.parse(text) : undefined
}

function hexadecimal([a = 0, b = 0, c = 0, d = 0]: readonly number[]): string {
  return `${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`
}

function classify(address: Address): AddressClass {
  if (metadata.some((range) => contains(range, address))) return 'metadata'
  if (!isV6(address)) return special4.find((range) => contains(range, address))?.[2] ?? 'public'
  const own = special6.find((range) => contains(range, address))?.[2] ?? 'reserved'
  return embedded(address).reduce(worse, isCarrier(address) ? 'public' : own)
}

/** Prefixes whose addresses mean nothing but the IPv4 address inside them. */
function isCarrier(address: ipaddr.IPv6): boolean {
  const p = address.parts
  return isMapped(p) || isNat64(p) || p[0] === 0x2002 || isTeredo(p)
}

/** The IPv4 addresses that an IPv6 address carries. */
function embedded(address: ipaddr.IPv6): AddressClass[] {
  const p = address.parts
  const tail = v4(p[6], p[7])
  if (isMapped(p) || isNat64(p)) return [classify(tail)]
  if (isTranslated(p) || isCompatible(p)) return [classify(tail)]
  if (p[0] === 0x64 && p[1] === 0xff9b && p[2] === 1) return localNat64(p)
  if (p[0] === 0x2002) return [classify(v4(p[1], p[2]))] // RFC 3056 §2
  if (isTeredo(p)) return [classify(v4(p[2], p[3])), classify(v4(~(p[6] ?? 0), ~(p[7] ?? 0)))] // RFC 4380 §4
  if (isIsatap(p)) return [classify(tail)]
  return []
}

/** 64:ff9b:1::/48 may be cut into prefixes of 48, 56, 64 or 96 bits, with the IPv4 address behind them (RFC 8215, RFC 6052 §2.2). */
function localNat64([, , , d = 0, e = 0, f = 0, g = 0, h = 0]: readonly number[]): AddressClass[] {
  const low = (first: number, second: number) => ((first & 0xff) << 8) | (second >> 8)
  return [v4(d, low(e, f)), v4(((d & 0xff) << 8) | (e & 0xff), f), v4(low(e, f), low(f, g)), v4(g, h)].map(classify)
}

function isMapped(p: readonly number[]): boolean {
  return allZero(p, 5) && p[5] === 0xffff // ::ffff:0:0/96
}

function isTranslated(p: readonly number[]): boolean {
  return allZero(p, 4) && p[4] === 0xffff && p[5] === 0 // ::ffff:0:0:0/96
}

function isCompatible(p: readonly number[]): boolean {
  return allZero(p, 6) && p[6] !== 0 // ::/96, withdrawn
}

function isNat64(p: readonly number[]): boolean {
  return p[0] === 0x64 && p[1] === 0xff9b && p[2] === 0 && p[3] === 0 && p[4] === 0 && p[5] === 0 // RFC 6052 §2.1
}

/** RFC 5214 §6.1: an interface that is reached over IPv4. The prefix may be any, so that only the worse of both counts. */
function isIsatap(p: readonly number[]): boolean {
  return (p[4] === 0 || p[4] === 0x200) && p[5] === 0x5efe
}

function isTeredo(p: readonly number[]): boolean {
  return p[0] === 0x2001 && p[1] === 0
}

function allZero(p: readonly number[], count: number): boolean {
  return p.slice(0, count).every((part) => part === 0)
}

function v4(high = 0, low = 0): ipaddr.IPv4 {
  return new ipaddr.IPv4([(high >> 8) & 0xff, high & 0xff, (low >> 8) & 0xff, low & 0xff])
}

function worse(a: AddressClass, b: AddressClass): AddressClass {
  return SEVERITY.indexOf(a) < SEVERITY.indexOf(b) ? a : b
}

function unmapped(address: Address): Address {
  return isV6(address) && isMapped(address.parts) ? v4(address.parts[6], address.parts[7]) : address
}

function isV6(address: Address): address is ipaddr.IPv6 {
  return address.kind() === 'ipv6'
}

function compile([cidr, kind]: Row): Range {
  return [...parseCidr(cidr), kind]
}

function parseCidr(cidr: string): [Address, number] {
  return ipaddr.parseCIDR(cidr)
}

function contains([network, bits]: readonly [Address, number, ...unknown[]], address: Address): boolean {
  return network.kind() === address.kind() && address.match(network as never, bits)
}
