/**
 * The name server of an isolated command. It resolves nothing: every name gets an address of its own out of a range that nobody
 * has (RFC 2544), so that whoever sees a connection to the address knows the name that was meant. Resolving is the gateway's.
 */

const FIRST = ((198 << 24) | (18 << 16)) >>> 0
/** 198.18.0.0/15 without its first and last address. */
const ADDRESSES = 2 ** 17 - 2

/** Names and their stand-in addresses. When all are given out the oldest go round again; a client that held on to one meets the wrong host, and is refused. */
export class StandIns {
  readonly #names: string[] = []
  /** name → place in `#names` */
  readonly #places = new Map<string, number>()
  #next = 0

  addressOf(name: string): Buffer {
    let place = this.#places.get(name)
    if (place === undefined) {
      place = this.#next
      this.#next = (place + 1) % ADDRESSES
      const former = this.#names[place]
      if (former !== undefined) this.#places.delete(former)
      this.#names[place] = name
      this.#places.set(name, place)
    }
    const address = Buffer.alloc(4)
    address.writeUInt32BE(FIRST + 1 + place)
    return address
  }

  /** @param address dotted IPv4; anything else has no name. */
  nameOf(address: string): string | undefined {
    const octets = address.split('.').map(Number)
    if (octets.length !== 4) return undefined
    return this.#names[octets.reduce((sum, octet) => sum * 256 + octet, 0) - FIRST - 1]
  }
}

const HEADER = 12
const A = 1
const INTERNET = 1
const NO_ERROR = 0
const NO_SUCH_NAME = 3
const NOT_FOR_US = 4
/** Seconds. Short: another run of the same program has other addresses. */
const TTL_S = 60

/**
 * RFC 1035 §4: one question, one answer. IPv6 and all other types have none, so that clients take IPv4.
 * @returns undefined for what is no question.
 */
export function answerQuestion(query: Buffer, standIns: StandIns): Buffer | undefined {
  if (query.length < HEADER || (query[2] ?? 0) & 0x80 || query.readUInt16BE(4) !== 1) return undefined
  const question = readQuestion(query)
  if (question === undefined) return undefined
  const { name, type, end } = question
  const isQuery = ((query[2] ?? 0) & 0x78) === 0
  const isName = NAME.test(name)
  const header = Buffer.from(query.subarray(0, HEADER))
  header[2] = 0x84 | ((query[2] ?? 0) & 0x79) // an answer, with authority
  header[3] = 0x80 | (isQuery ? (isName ? NO_ERROR : NO_SUCH_NAME) : NOT_FOR_US)
  header.fill(0, 6)
  if (!isQuery || !isName || type !== A) return Buffer.concat([header, query.subarray(HEADER, end)])
  header.writeUInt16BE(1, 6)
  const record = Buffer.alloc(12)
  record.writeUInt16BE(0xc000 | HEADER, 0) // the name of the question
  record.writeUInt16BE(A, 2)
  record.writeUInt16BE(INTERNET, 4)
  record.writeUInt32BE(TTL_S, 6)
  record.writeUInt16BE(4, 10)
  const address = LOCAL.test(name) ? Buffer.from([127, 0, 0, 1]) : standIns.addressOf(name)
  return Buffer.concat([header, query.subarray(HEADER, end), record, address])
}

/** What may stand in a CONNECT: nothing that could end its line. */
const NAME = /^(?=.{1,253}$)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*$/
/** RFC 6761 §6.3 */
const LOCAL = /(?:^|\.)localhost$/

function readQuestion(query: Buffer): { name: string; type: number; end: number } | undefined {
  const labels: string[] = []
  let at = HEADER
  for (;;) {
    const length = query[at]
    if (length === undefined || length > 63) return undefined // cut short, or a pointer, which a question has no use for
    at += 1
    if (length === 0) break
    labels.push(query.toString('latin1', at, at + length))
    at += length
  }
  if (at + 4 > query.length) return undefined
  return { name: labels.join('.').toLowerCase(), type: query.readUInt16BE(at), end: at + 4 }
}
