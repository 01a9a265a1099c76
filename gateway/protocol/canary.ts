/**
 * Canary credentials: bait that nothing legitimate uses, in the look of what thieves search for. The gateway knows their digests alone;
 * 80 bits and more of randomness keep those from leading back.
 */
import { hash, randomBytes, randomInt } from 'node:crypto'
import { crc32 } from 'node:zlib'

const BASE62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const BASE32 = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

interface Look {
  make(): string
  /** Finds it in a text, among others of its look. */
  readonly pattern: RegExp
}

export const LOOKS = {
  /** An access key id: what a signed request shows. */
  aws: { make: () => `AKIA${letters(BASE32, 16)}`, pattern: /(?<![A-Z0-9])AKIA[A-Z2-7]{16}(?![A-Z0-9])/g },
  github: { make: githubToken, pattern: /(?<![A-Za-z0-9])ghp_[A-Za-z0-9]{36}(?![A-Za-z0-9])/g },
  openai: {
    make: () => `sk-proj-${url64(74)}T3BlbkFJ${url64(74)}`,
    pattern: /(?<![A-Za-z0-9])sk-proj-[\w-]{74}T3BlbkFJ[\w-]{74}(?![\w-])/g,
  },
  generic: { make: () => letters(BASE62, 40), pattern: /(?<![A-Za-z0-9])[A-Za-z0-9]{40}(?![A-Za-z0-9])/g },
} as const satisfies Record<string, Look>

export type CanaryLook = keyof typeof LOOKS

export interface PlantedCanary {
  readonly look: CanaryLook
  /** Hex SHA-256 of it. */
  readonly sha256: string
}

export interface Canaries {
  /** Name of a canary that stands in the text as it is; undefined: none does. */
  find(text: string): string | undefined
}

/** @param planted by name. */
export function createCanaries(planted: Readonly<Record<string, PlantedCanary>>): Canaries | undefined {
  const names = new Map(Object.entries(planted).map(([name, { sha256 }]) => [sha256, name]))
  if (names.size === 0) return undefined
  const patterns = [...new Set(Object.values(planted).map(({ look }) => LOOKS[look].pattern))]
  return {
    find(text) {
      for (const pattern of patterns)
        for (const [found] of text.matchAll(pattern)) {
          const name = names.get(canaryDigest(found))
          if (name !== undefined) return name
        }
      return undefined
    },
  }
}

export function canaryDigest(token: string): string {
  return hash('sha256', token)
}

/** Thirty letters and the checksum that those who look for such tokens hold them against. */
function githubToken(): string {
  const random = letters(BASE62, 30)
  let sum = crc32(random)
  let check = ''
  for (; check.length < 6; sum = Math.floor(sum / 62)) check = BASE62.charAt(sum % 62) + check
  return `ghp_${random}${check}`
}

function letters(alphabet: string, n: number): string {
  return Array.from({ length: n }, () => alphabet.charAt(randomInt(alphabet.length))).join('')
}

function url64(n: number): string {
  return randomBytes(n).toString('base64url').slice(0, n)
}
