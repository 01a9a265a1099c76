/**
 * What a grant reaches, as operations and hosts: its authority and that of every grant above it. With the catalogue of services
 * patterns are spelled out; without one, only what was ever asked for is known of a pattern.
 */
import { patternCovers } from '../protocol/authority.ts'
import type { Authority } from '../protocol/grant.ts'
import type { Access, Operation, Service } from '../protocol/service.ts'
import type { Database } from './database.ts'
import type { Granted } from './granted.ts'

/** One thing that can be done, and where. */
export interface Reachable {
  readonly operation: string
  /** Undefined: no service file says. */
  readonly access?: Access
  readonly sensitivity?: Operation['sensitivity']
  readonly irreversible?: boolean
  readonly returns_secret?: boolean
  readonly hosts: readonly string[]
}

export interface Vocabulary {
  /** `catalogue`: what service files describe. `log`: what was ever asked for; there may be more. */
  readonly source: 'catalogue' | 'log'
  readonly operations: readonly Reachable[]
}

/** Of the services that a gateway has. */
export function vocabularyOf(services: readonly Service[]): Vocabulary {
  const operations = services.flatMap(({ operations: offered, hosts }) =>
    offered.map(({ name, access, sensitivity, irreversible, returnsSecret }) => ({
      operation: name,
      access,
      sensitivity,
      irreversible,
      returns_secret: returnsSecret,
      hosts,
    })),
  )
  return { source: 'catalogue', operations }
}

/** Of what was ever called or refused. */
export async function vocabularyIn(database: Database): Promise<Vocabulary> {
  const rows = await database.all<{ operation: string; host: string }>(
    `SELECT DISTINCT operation, host FROM records WHERE kind = 'call' AND operation IS NOT NULL AND host IS NOT NULL`,
  )
  const operations = [...Map.groupBy(rows, ({ operation }) => operation)].map(([operation, group]) => ({
    operation,
    hosts: group.map(({ host }) => host).sort(),
  }))
  return { source: 'log', operations }
}

/** A pattern that covers nothing that is known stands for itself: it was granted all the same. */
export function reachOf(chain: readonly Pick<Granted, 'authority'>[], { operations }: Vocabulary): Reachable[] {
  const [own, ...others] = chain.toReversed()
  if (own === undefined) return []
  const names = new Map(operations.map((one) => [one.operation, one]))
  for (const pattern of own.authority.flatMap((entry) => entry.operations)) {
    const isKnown = operations.some(({ operation }) => patternCovers(pattern, operation))
    if (!isKnown) names.set(pattern, { operation: pattern, hosts: [] })
  }
  return [...names.values()].flatMap((one) => {
    const isWithin = [own, ...others].every(({ authority }) => covers(authority, one.operation))
    const hosts = placesOf(own.authority, one)
    return isWithin ? [{ ...one, hosts }] : []
  })
}

function covers(authority: readonly Authority[], operation: string): boolean {
  return authority.some((entry) => entry.operations.some((pattern) => patternCovers(pattern, operation)))
}

/** Hosts that its locations allow. */
function placesOf(authority: readonly Authority[], { operation, hosts }: Reachable): readonly string[] {
  const entries = authority.filter((entry) => entry.operations.some((pattern) => patternCovers(pattern, operation)))
  if (entries.some(({ locations }) => locations === undefined)) return hosts
  const named = new Set(entries.flatMap(({ locations = [] }) => locations.map((origin) => URL.parse(origin)?.hostname)))
  const left = hosts.filter((host) => named.has(host))
  return hosts.length === 0 ? [...named].flatMap((host) => host ?? []) : left
}

/** How much can be done with it: 1 a read, 3 a write, 10 what is admin, cannot be undone or answers with a credential; 3 where nothing is known. */
export function privilegeOf(reach: readonly Reachable[]): number {
  return reach.reduce((sum, one) => sum + weightOf(one), 0)
}

function weightOf({ access, irreversible, returns_secret }: Reachable): number {
  if (access === 'admin' || irreversible || returns_secret) return 10
  return access === 'read' ? 1 : 3
}
