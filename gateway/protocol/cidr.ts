/**
 * Ranges of addresses (CIDR) and what lies in them. An IPv4 address inside IPv6 (`::ffff:10.0.0.1`, how a dual-stack socket
 * shows it) is that IPv4 address; no IPv6 range holds IPv4 addresses. Pure.
 */
import ipaddr from 'ipaddr.js'

type Address = ipaddr.IPv4 | ipaddr.IPv6

export interface Cidr {
  readonly network: Address
  readonly bits: number
}

/** Undefined for anything that is not one address. A zone id (`fe80::1%eth0`) names an interface of this machine and is cut off. */
export function parseAddress(text: string): Address | undefined {
  const zone = text.indexOf('%')
  const bare = zone === -1 ? text : text.slice(0, zone)
  if (!bare.includes(':')) return ipaddr.IPv4.isValidFourPartDecimal(bare) ? ipaddr.IPv4.parse(bare) : undefined
  // ipaddr.js takes `::1.2.3.4` for mapped; WHATWG parsing writes it in hexadecimal, where there is only one reading.
  const plain = /^[\da-f:.]+$/i.test(bare) ? URL.parse(`http://[${bare}]`)?.hostname.slice(1, -1) : undefined
  if (plain === undefined) return undefined
  const address = ipaddr.IPv6.parse(plain)
  return address.isIPv4MappedAddress() ? address.toIPv4Address() : address
}

/** Undefined unless the text is an address without zone, a slash and a prefix length. */
export function parseCidr(text: string): Cidr | undefined {
  const [base = '', length = '', ...more] = text.split('/')
  const network = base.includes('%') ? undefined : parseAddress(base)
  if (network === undefined || more.length > 0 || !/^(?:0|[1-9]\d{0,2})$/.test(length)) return undefined
  const isV4 = network.kind() === 'ipv4'
  const bits = Number(length) - (isV4 && base.includes(':') ? 96 : 0)
  return bits >= 0 && bits <= (isV4 ? 32 : 128) ? { network, bits } : undefined
}

/** The one way in which a range is written: no bits beyond the prefix, IPv4 as a dotted quad, IPv6 as in RFC 5952. */
export function formatCidr({ network, bits }: Cidr): string {
  const bytes = network.toByteArray().map((byte, i) => byte & (0xff << Math.min(8, Math.max(0, 8 * (i + 1) - bits))))
  const base = ipaddr.fromByteArray(bytes)
  return `${base.kind() === 'ipv6' ? (base as ipaddr.IPv6).toRFC5952String() : base.toString()}/${bits}`
}

export function cidrContains({ network, bits }: Cidr, address: Address): boolean {
  return network.kind() === address.kind() && address.match(network as never, bits)
}

/** Whether every address of `inner` is in `outer`. */
export function cidrIncludes(outer: Cidr, inner: Cidr): boolean {
  return inner.bits >= outer.bits && cidrContains(outer, inner.network)
}
