/**
 * The ways in which a value comes back when an upstream echoes it: as it is, and as common encoders write it. Pure.
 * Each spelling is a byte string to search for; together they are what "no credential in any answer" means.
 */

/** Shorter byte strings occur by chance in any text, so they are not searched for. */
const MIN_SPELLING_BYTES = 8

/** A value with more kinds of characters that encoders escape has too many partly escaped spellings; the common ones are searched for. */
const MAX_KINDS = 4

/**
 * Spellings of `value`, none shorter than `MIN_SPELLING_BYTES`, none twice: UTF-8, latin1 and UTF-16; reversed; base64 and
 * base64url at each of the three alignments (the characters that the value alone decides); hexadecimal; percent-encoding, JSON
 * escapes (`\/`, `\uXXXX`) and HTML entities, of the whole, as common encoders need them, and of any kinds of its punctuation.
 * Mixed letter case within one spelling, line breaks, other encodings and encodings of encodings are not covered.
 */
export function spellings(value: string): Buffer[] {
  const bytes = Buffer.from(value, 'utf8')
  const texts = new Set<string>([
    value,
    [...value].reverse().join(''),
    ...hexadecimal(bytes),
    ...percent(value, bytes),
    ...json(value),
    ...html(value),
    ...partly(value),
  ])
  for (let offset = 0; offset < 3; offset += 1) addBase64(texts, bytes, offset)
  const found: Buffer[] = [...texts].map((text) => Buffer.from(text, 'utf8'))
  const latin1 = Buffer.from(value, 'latin1') // how a header field carries it
  if (!latin1.equals(bytes)) found.push(latin1)
  found.push(...wide(value))
  return found.filter((spelling) => spelling.length >= MIN_SPELLING_BYTES)
}

/** Encoders agree on letters and digits, and on nothing else: each kind of character may be escaped or not. */
function partly(value: string): string[] {
  const kinds = [...new Set(value.toWellFormed().match(/[^A-Za-z0-9]/gu))]
  if (kinds.length > MAX_KINDS) return []
  const texts: string[] = []
  for (let choice = 1; choice < 2 ** kinds.length; choice += 1) {
    const chosen = new Set(kinds.filter((_, i) => choice & (2 ** i)))
    for (const escaped of ESCAPES) {
      texts.push([...value].map((char) => (chosen.has(char) ? escaped(char) : char)).join(''))
    }
  }
  return texts.flatMap((text) => (text.includes('/') ? [text, text.replaceAll('/', '\\/')] : [text]))
}

/** One character as an encoder writes it. */
const ESCAPES: readonly ((char: string) => string)[] = [
  (char) => upperEscapes(percentAll(char)),
  (char) => percentAll(char),
  (char) => char.replaceAll(/[\s\S]/g, unicodeEscape),
  (char) => char.replaceAll(/[\s\S]/g, (unit) => `\\u${unicodeEscape(unit).slice(2).toUpperCase()}`),
  (char) => `&#${char.codePointAt(0)};`,
  (char) => `&#x${char.codePointAt(0)?.toString(16)};`,
  (char) => `&#x${char.codePointAt(0)?.toString(16).toUpperCase()};`,
]

function percentAll(text: string): string {
  return Buffer.from(text, 'utf8').toString('hex').replaceAll(/../g, '%$&')
}

/** UTF-16: some servers answer in it when asked to. The last byte of the one order is the first of the other. */
function wide(value: string): Buffer[] {
  const little = Buffer.from(value, 'utf16le')
  // Of ASCII every other byte is zero, and without the outermost of them both orders are the same bytes.
  if (/^[\0-\x7f]*$/.test(value)) return [little.subarray(0, -1)]
  return [little, Buffer.from(little).swap16()]
}

/** The base64 characters that depend on `bytes` alone when `offset` bytes of a group of three stand before it. */
function addBase64(texts: Set<string>, bytes: Buffer, offset: number): void {
  const text = Buffer.concat([Buffer.alloc(offset), bytes]).toString('base64')
  const inner = text.slice(offset === 0 ? 0 : offset + 1, Math.floor(((offset + bytes.length) * 8) / 6))
  texts.add(inner)
  texts.add(inner.replaceAll('+', '-').replaceAll('/', '_'))
  texts.add(inner.replaceAll('/', '\\/'))
}

function hexadecimal(bytes: Buffer): string[] {
  const lower = bytes.toString('hex')
  return [lower, lower.toUpperCase()]
}

function percent(value: string, bytes: Buffer): string[] {
  const whole = bytes.toString('hex').replaceAll(/../g, '%$&')
  const component = encodeURIComponent(value.toWellFormed())
  const strict = component.replaceAll(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
  const form = strict.replaceAll('~', '%7E').replaceAll('%20', '+').replaceAll('%2A', '*') // application/x-www-form-urlencoded
  const needed = [component, strict, form]
  return [whole, upperEscapes(whole), ...needed, ...needed.map(lowerEscapes)]
}

function upperEscapes(text: string): string {
  return text.replaceAll(/%../g, (code) => code.toUpperCase())
}

function lowerEscapes(text: string): string {
  return text.replaceAll(/%../g, (code) => code.toLowerCase())
}

function json(value: string): string[] {
  const plain = JSON.stringify(value).slice(1, -1)
  const slashed = plain.replaceAll('/', '\\/')
  const ascii = plain.replaceAll(/[\u0080-\uffff]/g, unicodeEscape)
  // Go escapes <, > and &; .NET also the apostrophe, the plus and the backtick.
  const cautious = value.replaceAll(/[^\x20-\x7e]|["\\<>&'+`]/g, unicodeEscape)
  const go = plain.replaceAll(/[<>&]/g, unicodeEscape)
  const whole = value.replaceAll(/[\s\S]/g, unicodeEscape)
  const all = [plain, slashed, ascii, ascii.replaceAll('/', '\\/'), go, cautious, whole]
  return [...all, ...all.map((text) => text.replaceAll(/\\u..../g, (code) => `\\u${code.slice(2).toUpperCase()}`))]
}

function unicodeEscape(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
}

function html(value: string): string[] {
  const base = value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
  const named = base.replaceAll('"', '&quot;')
  const decimal = base.replaceAll('"', '&#34;').replaceAll("'", '&#39;')
  const hexadecimalEntities = named.replaceAll("'", '&#x27;').replaceAll('/', '&#x2F;').replaceAll('=', '&#x3D;')
  return [base, named, decimal, named.replaceAll("'", '&#39;'), hexadecimalEntities]
}
