/**
 * What policy keeps back of an answer (`@redact`): members of its JSON body, by pointer. The answer is read whole and goes out with
 * a word in their place, every other value as it was; one in which they could stand unseen does not go out. Pure.
 */
import { isMembers, type Members, parseExact, pointerTokens } from '../protocol/exact-json.ts'
import { GatewayError } from '../protocol/problem.ts'
import { parseStrictJson } from '../protocol/strict-json.ts'
import type { Head } from './head.ts'

/** What the agent sees instead. */
const REDACTED = '[redacted]'

/** Fields that say how long the body is, or what its bytes hash to. */
const ABOUT_BYTES = /^(?:content-length|etag|content-md5|digest|content-digest|repr-digest|accept-ranges)$/i

/** RFC 9110 §15.3.7, RFC 3229 §10.4.1: a piece of JSON, or what differs in it, can be JSON too. */
const PARTIAL: ReadonlySet<number> = new Set([206, 226])

export interface Redacted {
  readonly headers: string[]
  readonly body: Buffer
}

/**
 * @param body decoded, whole.
 * @throws {GatewayError} `answer_withheld` for a success that is not JSON in one reading, or has another shape where a pointer leads.
 */
export function redactAnswer({ status, headers }: Head, body: Buffer, pointers: readonly string[]): Redacted {
  if (body.length === 0) return { headers, body }
  const kept = headers.filter((_, i) => !ABOUT_BYTES.test(headers[i - (i % 2)] as string))
  if (PARTIAL.has(status)) throw withheld('it is a part of one, in which members have no names')
  const shown = redacted(body, pointers)
  // Of a failure that cannot be read the agent learns its status.
  if (shown === undefined && status < 400) throw withheld('it is not JSON that is read in one way only')
  const bytes = shown ?? Buffer.alloc(0)
  return { headers: [...kept, 'Content-Length', String(bytes.length)], body: bytes }
}

export function tooLarge(most: number): GatewayError {
  return withheld(`it is longer than ${most} bytes`)
}

/** Undefined: nobody can say what it says. */
function redacted(body: Buffer, pointers: readonly string[]): Buffer | undefined {
  const text = decoded(body)
  if (text === undefined) return undefined
  let json = parseExact(text)
  for (const pointer of pointers) json = without(json, pointerTokens(pointer))
  return Buffer.from(JSON.stringify(json), 'utf8')
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function decoded(body: Buffer): string | undefined {
  try {
    const text = utf8.decode(body)
    parseStrictJson(text) // of two equal names one reader shows the first, another the last
    return text
  } catch {
    return undefined
  }
}

/** `*` is every member or element. Where something else stands than a pointer expects, what it means could stand there too. */
function without(value: unknown, [token, ...rest]: readonly string[]): unknown {
  if (token === undefined) return value === null ? null : REDACTED
  if (Array.isArray(value)) {
    if (token !== '*' && !/^(?:0|[1-9]\d*)$/.test(token)) return value.map((one) => without(one, [token, ...rest]))
    return value.map((one, i) => (token === '*' || i === Number(token) ? without(one, rest) : one))
  }
  if (isMembers(value)) {
    const names = token === '*' ? Object.keys(value) : Object.keys(value).filter((name) => isAlike(name, token))
    const members: Members = { ...value }
    for (const name of names) members[name] = without(value[name], rest)
    return members
  }
  return value === null ? null : REDACTED
}

/** Readers that ignore case would find it under either name. */
function isAlike(name: string, token: string): boolean {
  return name.toLowerCase() === token.toLowerCase()
}

function withheld(why: string): GatewayError {
  return new GatewayError(
    'answer_withheld',
    `Policy keeps something of this answer back, and cannot be sure of having found it: ${why}. The upstream has carried out the call. Ask it for plain JSON, and for less at once.`,
  )
}
