/**
 * A credential made to be looked for: in every byte that an agent, a log, a cache or a record ever gets, as it is and in
 * every spelling that upstreams and tools use.
 */
import { randomBytes } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'

/** Long and random, with characters that JSON, URLs and base64 spell differently. */
export function newCanary(): string {
  return `canary+${randomBytes(24).toString('base64')}"~/`
}

export interface Sighting {
  /** Spelling in which it was found: `raw`, `base64+1`, … */
  readonly spelling: string
  readonly offset: number
}

/** Where `canary` occurs in `bytes`, in any spelling. */
export function findCanary(bytes: Buffer | string, canary: string): Sighting[] {
  const where = typeof bytes === 'string' ? Buffer.from(bytes) : bytes
  return [...spelledOnce(canary)].flatMap(([spelling, needle]) => {
    const offset = where.indexOf(needle)
    return offset === -1 ? [] : [{ spelling, offset }]
  })
}

/**
 * The same of each of `canaries` for every file below `dir`; files that are gzip are looked into. A file that is renamed meanwhile
 * is found under its new name at the latest when the gateway has stopped. @returns `path: spelling at offset`.
 */
export async function findCanaryInTree(dir: string, ...canaries: readonly string[]): Promise<string[]> {
  const found: string[] = []
  for (const entry of await readdir(dir, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    const path = join(entry.parentPath, entry.name)
    const bytes = unpacked(await readIfThere(path))
    for (const { spelling, offset } of canaries.flatMap((canary) => findCanary(bytes, canary)))
      found.push(`${path}: ${spelling} at ${offset}`)
  }
  return found
}

/** Somebody may be writing there: temporary files come and go. */
async function readIfThere(path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return Buffer.alloc(0)
    throw cause
  }
}

function unpacked(bytes: Buffer): Buffer {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes
  return Buffer.concat([bytes, gunzipSync(bytes)])
}

/** canary → its spellings: some are looked for a thousand times. */
const known = new Map<string, Map<string, Buffer>>()

function spelledOnce(canary: string): Map<string, Buffer> {
  const spellings = known.get(canary) ?? spellingsOf(canary)
  known.set(canary, spellings)
  return spellings
}

function spellingsOf(canary: string): Map<string, Buffer> {
  const raw = Buffer.from(canary)
  const spellings: [string, string][] = [
    ['raw', canary],
    ['hex', raw.toString('hex')],
    ['HEX', raw.toString('hex').toUpperCase()],
    ['percent', encodeURIComponent(canary)],
    ['form', encodeURIComponent(canary).replaceAll('%20', '+').replaceAll('~', '%7E')],
    ['percent, lower case', encodeURIComponent(canary).replaceAll(/%[0-9A-F]{2}/g, (code) => code.toLowerCase())],
    ['percent, all', [...raw].map((byte) => `%${byte.toString(16).padStart(2, '0').toUpperCase()}`).join('')],
    ['JSON', JSON.stringify(canary).slice(1, -1)],
    ['JSON, slashes escaped', JSON.stringify(canary).slice(1, -1).replaceAll('/', '\\/')],
    [
      'JSON, unicode escapes',
      [...canary].map((one) => `\\u${one.charCodeAt(0).toString(16).padStart(4, '0')}`).join(''),
    ],
    ['HTML', canary.replaceAll('&', '&amp;').replaceAll('"', '&quot;')],
    ['reversed', [...canary].reverse().join('')],
  ]
  for (const shift of [0, 1, 2]) {
    const inner = innerBase64(raw, shift)
    spellings.push([`base64+${shift}`, inner], [`base64url+${shift}`, inner.replaceAll('+', '-').replaceAll('/', '_')])
  }
  return new Map(spellings.map(([name, text]) => [name, Buffer.from(text)]))
}

/** The part of the base64 of `…canary…` that does not depend on what surrounds it, when `shift` bytes precede a group. */
function innerBase64(raw: Buffer, shift: number): string {
  const padded = Buffer.concat([Buffer.alloc(shift), raw])
  const text = padded.toString('base64').replaceAll('=', '')
  // The last character of an unfinished group also depends on what follows.
  return text.slice(shift === 0 ? 0 : shift + 1, padded.length % 3 === 0 ? undefined : -1)
}
