/**
 * An answer that is itself a credential (`returns_secret`): read whole, its credentials kept by the lease room, and what stands
 * for them put in their place. Everything else keeps its bytes. Whatever cannot be captured for certain is withheld.
 */
import type { Captive, Capture } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { Secret } from '../protocol/secret.ts'
import { parseStrictJson } from '../protocol/strict-json.ts'
import type { Head } from './head.ts'
import { searcherOf } from './searcher.ts'

/** Longest answer that is captured. */
export const MAX_CAPTURED_BYTES = 1024 * 1024

const MAX_CAPTIVES = 100
/**
 * Of all credentials in one answer together. Each is looked for in some sixty spellings, which takes 4 µs a byte to prepare, while
 * nobody else is served.
 */
const MAX_CAPTIVE_BYTES = 32 * 1024

/** Fields that a captured answer keeps. Any other could hold the credential too: `Location`, `Set-Cookie`, `Link`. */
const KEPT =
  /^(?:content-type|date|retry-after|vary|cache-control|pragma|expires|x-ratelimit-[\w-]+|[\w-]*request-id)$/i

export interface Captured {
  readonly headers: string[]
  readonly body: Buffer
}

/**
 * The answer as the agent may have it. Only a failure (status 400 and above) and an answer without content may hold nothing.
 * @throws {GatewayError} `answer_withheld`, or what `keep` rejects with.
 */
export async function captureAnswer({ status, headers }: Head, body: Buffer, capture: Capture): Promise<Captured> {
  if (status >= 300 && status < 400) throw withheld('it is a redirect, whose target may be a credential')
  const kept = headers.filter((_, i) => KEPT.test(headers[i - (i % 2)] as string))
  if (body.length === 0) return { headers: [...kept, 'Content-Length', '0'], body }
  const text = decode(body)
  const found = new Map<string, Captive>()
  const json = parse(text)
  for (const pointer of capture.pointers.toSorted((a, b) => a.length - b.length)) {
    const hasDeeper = capture.pointers.some((other) => other.startsWith(`${pointer}/`))
    const at = { found, hasDeeper, isFailure: status >= 400 }
    collect(json, pointer.split('/').slice(1).map(unescapeToken), at)
  }
  if (found.size === 0 && status < 400)
    throw withheld('nothing stands where the service file says that credentials are')
  requireSearchable([...found.keys()])
  const captives = [...found.values()]
  const standIns = await capture.keep(captives)
  const byValue = new Map([...found.keys()].map((value, i) => [value, standIns[i] as string]))
  const replaced = Buffer.from(replaceStrings(text, byValue), 'utf8')
  // The same value may stand within another one, or in the head.
  const searcher = searcherOf(captives.map(({ secret }) => secret))
  searcher?.mask(replaced)
  const shown = kept.map((field) => {
    const bytes = Buffer.from(field, 'latin1')
    return searcher !== null && searcher.mask(bytes) > 0 ? bytes.toString('latin1') : field
  })
  return { headers: [...shown, 'Content-Length', String(replaced.length)], body: replaced }
}

function requireSearchable(values: readonly string[]): void {
  if (values.length > MAX_CAPTIVES) throw withheld(`it holds more than ${MAX_CAPTIVES} credentials`)
  if (values.join('').length > MAX_CAPTIVE_BYTES)
    throw withheld(`its credentials are longer than ${MAX_CAPTIVE_BYTES} bytes together`)
  if (values.some(isMonotonous)) throw withheld('what stands at the place of a credential repeats itself')
}

/** What begins or ends like `xxxx…` would be compared to its end at every place of a text like it. */
function isMonotonous(value: string): boolean {
  if (value.length < 256) return false
  return [value.slice(0, 64), value.slice(-64)].some((end) =>
    Array.from({ length: 16 }, (_, i) => i + 1).some((period) => end.startsWith(end.slice(period))),
  )
}

export function tooLarge(): GatewayError {
  return withheld(`it is longer than ${MAX_CAPTURED_BYTES} bytes`)
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function decode(body: Buffer): string {
  try {
    return utf8.decode(body)
  } catch {
    throw withheld('it is not JSON in UTF-8')
  }
}

function parse(text: string): unknown {
  try {
    return parseStrictJson(text)
  } catch {
    throw withheld('it is not JSON that is read in one way only')
  }
}

/** RFC 6901 §4. */
function unescapeToken(token: string): string {
  return token.replaceAll('~1', '/').replaceAll('~0', '~')
}

interface Collection {
  readonly found: Map<string, Captive>
  /** Another pointer goes on from the same place: an object there is that one's. */
  readonly hasDeeper: boolean
  /** Of an error nothing is expected but that it says why. */
  readonly isFailure: boolean
}

/** Every string at the place, with what its object says of its end. */
function collect(value: unknown, path: readonly string[], at: Collection, parent?: object): void {
  const [token, ...rest] = path
  if (token === undefined) {
    if (value === null || value === undefined || value === '') return
    if (at.hasDeeper && typeof value === 'object') return
    if (typeof value !== 'string') throw withheld('what stands at the place of a credential is not text')
    at.found.set(value, { secret: new Secret(value), look: lookOf(value), ...endBeside(parent) })
    return
  }
  if (!at.isFailure && !at.found.has(value as string)) requirePassable(value, token)
  if (typeof value !== 'object' || value === null) return
  const members = token === '*' ? Object.values(value) : Object.hasOwn(value, token) ? [Reflect.get(value, token)] : []
  for (const member of members) collect(member, rest, at, value)
}

/** Where the answer has another shape than the service file says, the credential may stand there in its stead. */
function requirePassable(value: unknown, token: string): void {
  const isPassable = Array.isArray(value)
    ? token === '*' || /^\d+$/.test(token) || value.length === 0
    : typeof value !== 'string' && typeof value !== 'number'
  if (!isPassable && value !== '')
    throw withheld('it has another shape than the service file says, and the credential may be there')
}

/** `expires_in` in seconds; `expires_at` or `expires` in epoch seconds or as a date. */
function endBeside(object: object | undefined): Pick<Captive, 'expiresAt' | 'expiresInS'> {
  const { expires_in: inS, expires_at, expires } = (object ?? {}) as Record<string, unknown>
  const at = expires_at ?? expires
  return {
    expiresAt: positive(typeof at === 'string' && !/^\d+$/.test(at) ? Date.parse(at) / 1000 : Number(at)),
    expiresInS: positive(Number(inS)),
  }
}

function positive(seconds: number): number | undefined {
  return Number.isFinite(seconds) && seconds > 0 ? Math.floor(seconds) : undefined
}

/** `ghs_`, `sk-`, `xoxb-`: a few letters tell clients its kind, and a guesser nothing. A JWT is shown with its times alone. */
function lookOf(value: string): string {
  const [header = '', claims = '', signature = '', ...rest] = value.split('.')
  if (signature !== '' && rest.length === 0) {
    const [alg, times] = [jwtAlgorithm(header), jwtTimes(claims)]
    if (alg !== undefined && times !== undefined) return `${jwtPart({ alg, typ: 'JWT' })}.${jwtPart(times)}.`
  }
  return /^[a-z]{2,5}[-_]/.exec(value)?.[0] ?? ''
}

function jwtAlgorithm(header: string): string | undefined {
  const alg = readPart(header)?.alg
  return typeof alg === 'string' && /^[A-Za-z0-9-]{2,10}$/.test(alg) ? alg : undefined
}

/** Clients read when a token ends, to renew it in time. */
function jwtTimes(claims: string): Record<string, number> | undefined {
  const all = readPart(claims)
  if (all === undefined) return undefined
  const times = ['iat', 'nbf', 'exp'].map((name) => [name, all[name]] as const)
  return Object.fromEntries(times.filter((pair): pair is readonly [string, number] => typeof pair[1] === 'number'))
}

function readPart(part: string): Record<string, unknown> | undefined {
  try {
    const json: unknown = JSON.parse(Buffer.from(part, 'base64url').toString('utf8'))
    return typeof json === 'object' && json !== null ? (json as Record<string, unknown>) : undefined
  } catch {
    return undefined
  }
}

function jwtPart(json: object): string {
  return Buffer.from(JSON.stringify(json)).toString('base64url')
}

/** Whole strings, wherever they stand; numbers and layout keep their bytes, which parsing and writing anew would not. */
function replaceStrings(text: string, byValue: ReadonlyMap<string, string>): string {
  return text.replaceAll(/"(?:[^"\\]|\\.)*"/g, (literal) => {
    const standIn = byValue.get(JSON.parse(literal) as string)
    return standIn === undefined ? literal : JSON.stringify(standIn)
  })
}

function withheld(why: string): GatewayError {
  return new GatewayError(
    'answer_withheld',
    `The answer is a credential, and cannot be held back from the agent: ${why}. The upstream has carried out the call. See "captures" of the operation in its service file.`,
  )
}
