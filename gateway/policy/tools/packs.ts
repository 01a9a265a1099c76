/**
 * The shipped policies by name: `shipped` for the defaults, `pack:NAME` for a pack beside them. Everything else that names policies is a
 * path, and is the business of whoever reads it.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { join, resolve, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { nearest } from '../../protocol/nearest.ts'

export const SHIPPED_POLICIES = fileURLToPath(new URL('../../../policies', import.meta.url))
export const PACKS = join(SHIPPED_POLICIES, 'packs')

const PREFIX = 'pack:'
const ENDING = '.cedar'

export interface Pack {
  readonly name: string
  /** What it is for, in a sentence: the first line of its file. */
  readonly says: string
  /** Absolute. */
  readonly file: string
}

/** What a name of no pack was, and what to write instead; spelled as problems of settings are. */
export interface UnknownPack {
  readonly got: string
  readonly allowed: string
  readonly fix: string
}

/** Names of the shipped packs, sorted. */
export function packNames(): string[] {
  const files = readdirSync(PACKS).filter((file) => file.endsWith(ENDING))
  return files.map((file) => file.slice(0, -ENDING.length)).sort()
}

export function packs(): Pack[] {
  return packNames().map((name) => {
    const file = join(PACKS, `${name}${ENDING}`)
    const [first = ''] = readFileSync(file, 'utf8').split('\n')
    return { name, says: first.replace(/^\/\/ /, ''), file }
  })
}

/** @returns the absolute path of what `shipped` or `pack:NAME` stands for; undefined: it is none of these names. */
export function shippedPlace(entry: string): string | UnknownPack | undefined {
  if (entry === 'shipped') return SHIPPED_POLICIES
  if (!entry.startsWith(PREFIX)) return undefined
  const [name, known] = [entry.slice(PREFIX.length), packNames()]
  if (known.includes(name)) return join(PACKS, `${name}${ENDING}`)
  const meant = nearest(name, known)
  return {
    got: JSON.stringify(entry),
    allowed: known.map((one) => PREFIX + one).join(', '),
    fix:
      meant === undefined
        ? 'write one of these (keyless policy packs lists them), or a path: ./policies'
        : `did you mean ${PREFIX}${meant}?`,
  }
}

/** Packs are chosen by name: none is in force because of the directory that it lies in. @param dir that is read. */
export function isUnchosenPack(dir: string, file: string): boolean {
  const inside = PACKS + sep
  return resolve(file).startsWith(inside) && !`${resolve(dir)}${sep}`.startsWith(inside)
}
