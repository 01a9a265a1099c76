/**
 * The canonical request of AWS Signature Version 4, made of the bytes as they are sent: text here holds one byte a character
 * (latin1), as Node reads heads. Pure. Clause numbers are those of the AWS reference, "Create a signed AWS API request".
 */
import { hash } from 'node:crypto'
import type { RawHeaders } from '../../protocol/message.ts'

/** SHA-256 of nothing, hex. */
export const EMPTY_HASH = hash('sha256', '')

export interface Canonical {
  readonly text: string
  /** `content-type;host;x-amz-date` */
  readonly signedHeaders: string
}

/** @param path path and query as sent. @param payload hash in hex, or how the body is signed. @param isS3 S3 encodes once, and keeps every slash. */
export function canonicalRequest(
  { method, path, headers }: { readonly method: string; readonly path: string; readonly headers: RawHeaders },
  payload: string,
  isS3: boolean,
): Canonical {
  const mark = path.indexOf('?')
  const query = mark === -1 ? '' : canonicalQuery(path.slice(mark + 1))
  const rawPath = mark === -1 ? path : path.slice(0, mark)
  const fields = signedFields(headers)
  const names = [...fields.keys()].sort()
  const lines = names.map((name) => `${name}:${fields.get(name)?.join(',')}\n`).join('')
  const signedHeaders = names.join(';')
  const text = [method, isS3 ? onceEncoded(rawPath) : twiceEncoded(rawPath), query, lines, signedHeaders, payload].join(
    '\n',
  )
  return { text, signedHeaders }
}

/**
 * What is signed: the host, what the body is, and every `x-amz-` field, which AWS requires ("any x-amz-* headers that you plan to
 * include"). Others may be rewritten on the way and are left out. Which the agent signed is its own business.
 */
function signedFields(headers: RawHeaders): Map<string, string[]> {
  const fields = new Map<string, string[]>()
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = (headers[i] as string).toLowerCase()
    if (!name.startsWith('x-amz-') && name !== 'host' && name !== 'content-type' && name !== 'content-md5') continue
    const value = (headers[i + 1] as string).replace(/[ \t]+/g, ' ').trim()
    fields.set(name, [...(fields.get(name) ?? []), value])
  }
  return fields
}

/** S3: the key, decoded and encoded again; "don't normalize the path". */
function onceEncoded(rawPath: string): string {
  return encode(decode(rawPath), true)
}

/** Elsewhere: "each path segment must be URI-encoded twice", and empty segments go. Dot segments were refused long before. */
function twiceEncoded(rawPath: string): string {
  const isOpen = rawPath.length > 1 && rawPath.endsWith('/')
  const segments = rawPath.split('/').filter((segment) => segment !== '')
  return `/${segments.map((segment) => encode(segment, false)).join('/')}${isOpen && segments.length > 0 ? '/' : ''}`
}

/** Parameters decoded, encoded in the one way, and in the order of their encoded bytes. */
function canonicalQuery(query: string): string {
  const pairs = query
    .split('&')
    .filter((part) => part !== '')
    .map((part): [string, string] => {
      const equals = part.indexOf('=')
      const [name, value] = equals === -1 ? [part, ''] : [part.slice(0, equals), part.slice(equals + 1)]
      return [encodeParameter(name), encodeParameter(value)]
    })
  pairs.sort(([a, x], [b, y]) => compare(a, b) || compare(x, y))
  return pairs.map(([name, value]) => `${name}=${value}`).join('&')
}

function encodeParameter(raw: string): string {
  return encode(decode(raw.replaceAll('+', ' ')), false)
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0
}

function decode(text: string): string {
  if (!text.includes('%')) return text
  return text.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
}

/** RFC 3986 §2.3: unreserved characters stand for themselves, every other byte is `%XX`. */
export function encode(bytes: string, keepsSlash: boolean): string {
  return bytes.replace(/[^A-Za-z0-9._~-]/g, (byte) =>
    byte === '/' && keepsSlash ? byte : `%${byte.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  )
}
