/**
 * PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): a balancer says in front of a connection whose it is.
 * Whoever may say so decides what policy and record take for the caller's address, so it is only read from listed peers.
 */
import { isIPv4, isIPv6 } from 'node:net'
import { cidrContains, parseAddress, parseCidr } from '../protocol/cidr.ts'
import type { FirstBytes } from './first-bytes.ts'

/** Peers whose announcement is required and believed. */
export interface Announcers {
  has(address: string): boolean
}

/** §2.1: the longest line there can be, its end included. */
const MAX_LINE = 107
const SIGNATURE_1 = Buffer.from('PROXY ')
/** §2.2 */
const SIGNATURE_2 = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
const LOCAL = 0x20
const PROXY = 0x21
const TCP_OVER_IPV4 = 0x11
const TCP_OVER_IPV6 = 0x21
const UNIX_STREAM = 0x31
const UNSPECIFIED = 0x00

/** @param from CIDR ranges, as settings have checked them. */
export function createAnnouncers(from: readonly string[]): Announcers {
  const ranges = from.flatMap((range) => parseCidr(range) ?? [])
  return {
    has(text) {
      const address = parseAddress(text)
      return address !== undefined && ranges.some((range) => cidrContains(range, address))
    },
  }
}

/** Whether a connection begins like an announcement; no HTTP request does. */
export function isAnnouncement(seen: Buffer): boolean {
  return startsWith(seen, SIGNATURE_1) || startsWith(seen, SIGNATURE_2.subarray(0, 5))
}

/**
 * Take the announcement off the front of a connection.
 * @returns the announced address; undefined where the balancer speaks for itself (LOCAL: its health checks) or knows none.
 * @throws {Error} when there is none, or it is malformed.
 */
export async function readAnnouncement(bytes: FirstBytes): Promise<string | undefined> {
  return startsWith(await bytes.peek(SIGNATURE_1.length), SIGNATURE_1) ? readLine(bytes) : readBinary(bytes)
}

async function readLine(bytes: FirstBytes): Promise<string | undefined> {
  for (let length = SIGNATURE_1.length; length <= MAX_LINE; length++) {
    const seen = await bytes.peek(length)
    if (seen[length - 1] !== 0x0a) continue
    await bytes.take(length)
    return addressIn(seen.toString('latin1'))
  }
  throw new Error(`its line has no end within ${MAX_LINE} bytes`)
}

/** §2.1 */
function addressIn(line: string): string | undefined {
  if (/^PROXY UNKNOWN(?: [^\r\n]*)?\r\n$/.test(line)) return undefined
  const [, family, source = '', target = '', ...ports] =
    /^PROXY TCP([46]) ([\da-fA-F.:]+) ([\da-fA-F.:]+) (\d{1,5}) (\d{1,5})\r\n$/.exec(line) ?? []
  const isAddress = family === '4' ? isIPv4 : isIPv6
  if (family === undefined || !isAddress(source) || !isAddress(target) || ports.some((port) => Number(port) > 65_535))
    throw new Error('its line is not `PROXY TCP4|TCP6|UNKNOWN source target port port`')
  return source
}

/** §2.2 */
async function readBinary(bytes: FirstBytes): Promise<string | undefined> {
  const head = await bytes.peek(SIGNATURE_2.length + 4)
  if (!startsWith(head, SIGNATURE_2)) throw new Error('there is none')
  const [command, transport] = [head[12], head[13]]
  const size = head.readUInt16BE(14)
  if (command !== LOCAL && command !== PROXY) throw new Error('its version or command is not known')
  await bytes.take(head.length)
  const body = await bytes.take(size)
  if (command === LOCAL) return undefined // the sender must be believed, whatever follows
  switch (transport) {
    case TCP_OVER_IPV4:
      return sourceIn(body, 12, () => body.subarray(0, 4).join('.'))
    case TCP_OVER_IPV6:
      return sourceIn(body, 36, () => addressV6(body))
    case UNIX_STREAM:
    case UNSPECIFIED:
      return undefined
    default:
      throw new Error('it is about a transport that is not TCP')
  }
}

function sourceIn(body: Buffer, least: number, read: () => string): string {
  if (body.length < least) throw new Error('it is too short for its addresses')
  return read()
}

/** In the shortest form, as sockets write it (RFC 5952). */
function addressV6(body: Buffer): string {
  const parts = Array.from({ length: 8 }, (_, i) => body.readUInt16BE(2 * i).toString(16))
  return new URL(`http://[${parts.join(':')}]`).hostname.slice(1, -1)
}

function startsWith(bytes: Buffer, signature: Buffer): boolean {
  return bytes.length >= signature.length && bytes.subarray(0, signature.length).equals(signature)
}
