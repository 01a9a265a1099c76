/** A query as people and programs write it, in options of the command or the query string of a request. Pure. */
import { MAX_LIMIT } from './find.ts'
import { invalid, sized } from './matching.ts'
import type { Query } from './query.ts'

/** Filters whose values are taken as they are. */
export const TEXT_FILTERS = [
  ...['tenant', 'log', 'human', 'agent', 'task', 'ancestor', 'grant', 'service', 'operation', 'host', 'status'],
  ...['kind', 'credential', 'trace', 'prompt', 'text'],
] as const

export type Asked = Readonly<Partial<Record<(typeof TEXT_FILTERS)[number] | (typeof OTHERS)[number], string>>>

const OTHERS = ['effect', 'since', 'until', 'limit', 'after', 'order'] as const

/** Characters of one value: more than any that an entry holds. */
export const MAX_VALUE = 1024

const DEFAULT_LIMIT = 50

/** The two entries of a call are one record. */
const KIND = /^(?:call|(?!call\.[a-z])[a-z]+\.(?:\*|[a-z_]+))$/

/** @throws {GatewayError} `instruction_invalid` naming the member, what was got, and what is allowed. */
export function readQuery(asked: Asked, nowMs: number): Query {
  for (const [name, value] of Object.entries(asked))
    if (value !== undefined && (value === '' || value.length > MAX_VALUE))
      throw invalid(`${name}: got ${value.length} characters, allowed are 1 to ${MAX_VALUE}.`)
  const texts = Object.fromEntries(
    TEXT_FILTERS.flatMap((name) => (asked[name] === undefined ? [] : [[name, asked[name]]])),
  )
  if (asked.kind !== undefined && !KIND.test(asked.kind))
    throw invalid(
      `kind: got ${sized(asked.kind)}, allowed is call (its decision and outcome are one record), a kind such as lease.issued, or a room such as grant.*.`,
    )
  const effect = oneOf('effect', asked.effect, ['allow', 'deny'])
  const order = oneOf('order', asked.order, ['newest', 'oldest'])
  return {
    ...texts,
    ...(effect !== undefined && { effect }),
    ...(order !== undefined && { order }),
    ...(asked.since !== undefined && { since: readTime('since', asked.since, nowMs) }),
    ...(asked.until !== undefined && { until: readTime('until', asked.until, nowMs) }),
    ...(asked.after !== undefined && { after: asked.after }),
    limit: asked.limit === undefined ? DEFAULT_LIMIT : readLimit(asked.limit),
  }
}

function oneOf<T extends string>(name: string, value: string | undefined, allowed: readonly T[]): T | undefined {
  const found = allowed.find((one) => one === value)
  if (value !== undefined && found === undefined)
    throw invalid(`${name}: got ${sized(value)}, allowed is ${allowed.join(' or ')}.`)
  return found
}

function readLimit(text: string): number {
  const limit = /^\d{1,9}$/.test(text) ? Number(text) : 0
  if (limit >= 1 && limit <= MAX_LIMIT) return limit
  throw invalid(`limit: got ${sized(text)}, allowed is a whole number, 1 to ${MAX_LIMIT}.`)
}

const UNITS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 }
const AGO = /^(\d{1,9})([smhdw])$/
const DATE = /^\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,3})?)?(Z|[+-]\d\d:\d\d)?)?$/

/** `2h` is two hours before `nowMs`. Times without a zone are UTC, as the log writes them. */
export function readTime(name: string, text: string, nowMs: number): number {
  const ago = AGO.exec(text)
  if (ago) return nowMs - Number(ago[1]) * (UNITS[ago[2] ?? ''] ?? 0)
  const date = DATE.exec(text)
  const written = text.replace(' ', 'T')
  const ms = date ? Date.parse(date[1] === undefined && written.includes('T') ? `${written}Z` : written) : Number.NaN
  if (!Number.isNaN(ms)) return ms
  throw invalid(
    `${name}: got ${sized(text)}, allowed is a time such as 2026-11-22T10:00:00Z, or how long ago, such as 90s, 30m, 2h, 7d.`,
  )
}
