/**
 * DER (X.690 §10), read by the letter: lengths are definite and minimal, nothing trails. Certificates are judged by their
 * bytes, because texts made of them can be made to lie (a DNS name with `, URI:` in it). Pure.
 */

/** Identifier octets, by the names of ASN.1. */
export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectIdentifier: 0x06,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
} as const

export interface Element {
  /** Identifier octet; all that certificates use fit into one. */
  readonly tag: number
  readonly value: Buffer
  /** Identifier, length and value. */
  readonly bytes: Buffer
}

/** The elements that `bytes` consists of. @throws {SyntaxError} */
export function elementsOf(bytes: Buffer): readonly Element[] {
  const found: Element[] = []
  for (let at = 0; at < bytes.length; ) {
    const element = elementAt(bytes, at)
    found.push(element)
    at += element.bytes.length
  }
  return found
}

/** The one element that `bytes` is. @throws {SyntaxError} */
export function onlyElement(bytes: Buffer, tag: number): Element {
  const [element, ...more] = elementsOf(bytes)
  if (element === undefined || more.length > 0) throw new SyntaxError('not exactly one element')
  return expectTag(element, tag)
}

/** @throws {SyntaxError} when the element is missing or of another kind. */
export function expectTag(element: Element | undefined, tag: number): Element {
  if (element?.tag === tag) return element
  throw new SyntaxError(`expected the tag ${tag}, got ${element?.tag ?? 'nothing'}`)
}

/** @throws {SyntaxError} X.690 §11.1: true is 0xff, false 0x00. */
export function booleanOf(element: Element): boolean {
  const { value } = expectTag(element, TAG.boolean)
  if (value.length !== 1 || (value[0] !== 0xff && value[0] !== 0)) throw new SyntaxError('not a DER boolean')
  return value[0] === 0xff
}

/** A small number that is not negative. @throws {SyntaxError} */
export function smallIntegerOf(element: Element, tag: number = TAG.integer): number {
  const { value } = expectTag(element, tag)
  const [first = 0x80, second] = value
  const isMinimal = first !== 0 || second === undefined || second >= 0x80
  if (value.length > 4 || first >= 0x80 || !isMinimal) throw new SyntaxError('not a small number')
  return value.readUIntBE(0, value.length)
}

/** Whether bit `n` (the first is 0) of a BIT STRING is set; bits beyond its end are not. @throws {SyntaxError} */
export function bitsOf(element: Element): (n: number) => boolean {
  const [unused = 8, ...octets] = expectTag(element, TAG.bitString).value
  if (unused > 7 || (octets.length === 0 && unused > 0)) throw new SyntaxError('not a bit string')
  return (n) => ((octets[n >> 3] ?? 0) & (0x80 >> (n & 7))) !== 0
}

/** `2.5.29.17` and the like. @throws {SyntaxError} */
export function objectIdentifierOf(element: Element | undefined): string {
  const { value } = expectTag(element, TAG.objectIdentifier)
  const arcs: number[] = []
  let arc = 0
  for (const octet of value) {
    if (arc === 0 && octet === 0x80) throw new SyntaxError('not a minimal object identifier')
    arc = arc * 128 + (octet & 0x7f)
    if (!Number.isSafeInteger(arc)) throw new SyntaxError('not an object identifier')
    if (octet >= 0x80) continue
    arcs.push(arc)
    arc = 0
  }
  const [first, ...rest] = arcs
  if (first === undefined || (value.at(-1) ?? 0x80) >= 0x80) throw new SyntaxError('not an object identifier')
  const root = Math.min(2, Math.floor(first / 40))
  return [root, first - 40 * root, ...rest].join('.')
}

/** RFC 5280 §4.1.2.5: both forms end in Z and have seconds. @returns milliseconds since the epoch. @throws {SyntaxError} */
export function timeOf(element: Element | undefined): number {
  const text = element?.value.toString('latin1') ?? ''
  const form =
    element?.tag === TAG.utcTime
      ? /^(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/
      : element?.tag === TAG.generalizedTime
        ? /^(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/
        : undefined
  const fields = form?.exec(text)?.slice(1).map(Number)
  if (fields === undefined) throw new SyntaxError('not a time of a certificate')
  const [written = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = fields
  const year = element?.tag === TAG.utcTime ? written + (written >= 50 ? 1900 : 2000) : written
  const date = new Date(0)
  date.setUTCFullYear(year, month - 1, day)
  date.setUTCHours(hour, minute, second)
  const readBack = [date.getUTCMonth() + 1, date.getUTCDate(), date.getUTCHours(), date.getUTCMinutes()]
  if (readBack.some((field, i) => field !== [month, day, hour, minute][i])) throw new SyntaxError('no such time')
  return date.getTime()
}

function elementAt(bytes: Buffer, at: number): Element {
  const [tag, first] = bytes.subarray(at, at + 2)
  if (tag === undefined || first === undefined) throw new SyntaxError('cut off')
  if ((tag & 0x1f) === 0x1f) throw new SyntaxError('a tag of several octets')
  const octets = first < 0x80 ? 0 : first & 0x7f
  const start = at + 2 + octets
  // X.690 §10.1: no indefinite length; the shortest form that holds it.
  if (first === 0x80 || octets > 3 || start > bytes.length) throw new SyntaxError('not a DER length')
  const length = octets === 0 ? first : bytes.readUIntBE(at + 2, octets)
  if (octets > 0 && (length < 0x80 || bytes[at + 2] === 0)) throw new SyntaxError('not the shortest length')
  const end = start + length
  if (end > bytes.length) throw new SyntaxError('cut off')
  return { tag, value: bytes.subarray(start, end), bytes: bytes.subarray(at, end) }
}
