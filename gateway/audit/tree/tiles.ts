/**
 * What a C2SP tlog-tiles server answers, by path: tiles of hashes and bundles of entries, full and partial, as far as the published
 * checkpoint covers them. Whatever else is asked for is not there, which is 404.
 */
import { coveredBy, entriesAt, firstKept } from '../files/follow.ts'
import { openHashes, TILE_LEVELS, TILE_WIDTH } from './proofs.ts'

/** Place and width of a tile. */
export interface Tile {
  /** 0 holds leaf hashes, 1 roots of 256 leaves each, and so on. */
  readonly level: number | 'entries'
  readonly n: number
  /** Hashes or entries in it: 256, or fewer in the last tile of a level. */
  readonly width: number
}

const PATH = /^tile\/(entries|0|[1-9][0-9]?)\/((?:x[0-9]{3}\/)*[0-9]{3})(?:\.p\/([1-9][0-9]{0,2}))?$/

/** The tile that a path such as `tile/1/x001/234.p/5` names, without a slash in front; undefined when it names none. */
export function parseTilePath(path: string): Tile | undefined {
  const [, level = '', number = '', width] = PATH.exec(path) ?? []
  if (number === '') return undefined
  const tile = {
    level: level === 'entries' ? level : Number(level),
    n: Number(number.replaceAll(/[x/]/g, '')),
    width: width === undefined ? TILE_WIDTH : Number(width),
  } as const
  // One path for one tile: no needless zeros in front, no `.p/256`.
  return tilePath(tile) === path && (tile.level === 'entries' || tile.level < 64) ? tile : undefined
}

export function tilePath({ level, n, width }: Tile): string {
  const digits = String(n)
  const groups = digits.padStart(Math.ceil(digits.length / 3) * 3, '0').match(/\d{3}/g) ?? []
  const number = groups.map((group, i) => (i < groups.length - 1 ? `x${group}` : group)).join('/')
  return `tile/${level}/${number}${width < TILE_WIDTH ? `.p/${width}` : ''}`
}

/**
 * Bytes of a tile: hashes end to end, or entries with their length in front (16 bits, big endian). Undefined when the path is none, when
 * the checkpoint does not cover it, and for entries that were pruned.
 */
export async function tileAt(dir: string, path: string): Promise<Buffer | undefined> {
  const tile = parseTilePath(path)
  if (!tile) return undefined
  const { level, n, width } = tile
  const height = level === 'entries' ? 0 : level
  if (height > TILE_LEVELS) return undefined
  const held = Math.floor((await coveredBy(dir)) / TILE_WIDTH ** height)
  if (n * TILE_WIDTH + width > held) return undefined
  return level === 'entries' ? bundle(dir, n, width) : hashes(dir, { level, n, width })
}

async function hashes(dir: string, { level, n, width }: { level: number; n: number; width: number }): Promise<Buffer> {
  const stored = await openHashes(dir)
  try {
    return await stored.tile(level, n, width)
  } finally {
    await stored.close()
  }
}

async function bundle(dir: string, n: number, width: number): Promise<Buffer | undefined> {
  const first = n * TILE_WIDTH
  if (first < (await firstKept(dir))) return undefined
  const entries = await entriesAt(
    dir,
    Array.from({ length: width }, (_, i) => first + i),
  )
  const parts: Buffer[] = []
  for (const entry of entries) {
    if (!entry) return undefined
    parts.push(Buffer.of(entry.length >> 8, entry.length & 0xff), entry)
  }
  return Buffer.concat(parts)
}
