/**
 * The JSON of a request whose grant looks into bodies, read whole before the decision. Refused is whatever two readers could
 * take for two things: then policy would see another value than the upstream (CWE-235).
 */
import type { Readable } from 'node:stream'
import type { Content, Inbound, RawHeaders } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { parseStrictJson } from '../protocol/strict-json.ts'

const MAX_BYTES = 1024 * 1024
/** An agent may not hold a decision open for as long as it likes. */
const READ_MS = 30_000

const JSON_TYPE = /^application\/(?:json|[\w.+-]{1,100}\+json)(?:[ \t]*;[ \t]*charset="?utf-8"?)?$/i

/**
 * The request with its content: at most 1 MiB of JSON in UTF-8, in no coding. A request without a body comes back as it is.
 * The stream is left to whoever answers; it is read to its end only on success.
 * @throws {GatewayError} `constraint_unmet`, `request_malformed` when the body broke off.
 */
export async function readContent(inbound: Inbound): Promise<Inbound> {
  if (inbound.body === null) return inbound
  requirePlainJson(inbound.rawHeaders)
  const bytes = await collect(inbound.body)
  return { ...inbound, content: { bytes, json: parse(bytes) } satisfies Content }
}

function requirePlainJson(rawHeaders: RawHeaders): void {
  const types = valuesOf(rawHeaders, 'content-type')
  if (types.length !== 1 || !JSON_TYPE.test(types[0] ?? ''))
    throw unmet('it does not say once that it is application/json in UTF-8')
  const isCoded = valuesOf(rawHeaders, 'content-encoding').some((coding) => coding.trim().toLowerCase() !== 'identity')
  if (isCoded) throw unmet('it is compressed')
}

/** CGI and its heirs read `Content_Type` as `Content-Type`: under either name it counts. */
function valuesOf(rawHeaders: RawHeaders, name: string): string[] {
  return rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]?.toLowerCase().replaceAll('_', '-') === name)
}

function collect(body: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  let length = 0
  return new Promise((resolve, reject) => {
    const settle = (outcome: () => void) => {
      clearTimeout(timer)
      body.off('data', add).off('end', finish).off('error', breakOff).off('close', breakOff)
      body.pause()
      outcome()
    }
    const add = (chunk: Buffer) => {
      length += chunk.length
      if (length > MAX_BYTES) settle(() => reject(unmet(`it is longer than ${MAX_BYTES} bytes`)))
      else chunks.push(chunk)
    }
    const finish = () => settle(() => resolve(Buffer.concat(chunks)))
    const breakOff = () => settle(() => reject(new GatewayError('request_malformed', 'The body broke off.')))
    const timer = setTimeout(
      () => settle(() => reject(unmet(`it took longer than ${READ_MS / 1000} s to arrive`))),
      READ_MS,
    )
    body.on('data', add).on('end', finish).on('error', breakOff).on('close', breakOff)
  })
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function parse(bytes: Buffer): unknown {
  let json: unknown
  try {
    json = parseStrictJson(utf8.decode(bytes))
  } catch {
    throw unmet('it is not JSON in UTF-8 with every name once')
  }
  requireDistinctNames(json)
  return json
}

/** Go's decoder, for one, takes `Model` and `MODEL` for `model`, and the last one counts. Depth is bounded by the parser. */
function requireDistinctNames(value: unknown): void {
  if (typeof value !== 'object' || value === null) return
  if (Array.isArray(value)) {
    for (const member of value) requireDistinctNames(member)
    return
  }
  const names = Object.keys(value)
  if (names.length > 1 && new Set(names.map(folded)).size < names.length)
    throw unmet('it has two names that differ only in case')
  for (const name of names) requireDistinctNames((value as Record<string, unknown>)[name])
}

const PLAIN = /^[\x20-\x7e]*$/

function folded(name: string): string {
  return (PLAIN.test(name) ? name : name.normalize('NFKC')).toLowerCase()
}

function unmet(what: string): GatewayError {
  return new GatewayError(
    'constraint_unmet',
    `The grant limits what the body of this call may say, and the body cannot be judged: ${what}. Send plain JSON.`,
  )
}
