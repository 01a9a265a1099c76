/** What all formats say of a call, worked out once: who, what, where to, how it ended. */
import { hash } from 'node:crypto'
import type { Entry } from '../../audit/entries/entry.ts'
import { traceIdOf } from '../../protocol/trace.ts'
import type { Exported, Item } from './item.ts'

export interface Call {
  /** Target and client are in the decision; an outcome alone does not know them. */
  readonly target: NonNullable<Entry['target']> | undefined
  readonly client: NonNullable<Entry['client']> | undefined
  /** scheme://host[:port]/path: the log has no query, and neither has what leaves. */
  readonly url: string | undefined
  /** Milliseconds since the epoch. Of a decision both are its time. */
  readonly startMs: number
  readonly endMs: number
  readonly isDenied: boolean
  /** Denied, broken off, or answered with 400 or above. */
  readonly hasFailed: boolean
  /** Code of a refusal, or how the exchange broke off. */
  readonly error: string | undefined
  readonly status: number | undefined
}

export function callOf({ entry, decision }: Item): Call {
  const { outcome } = entry
  const { target, client } = decision ?? entry
  const endMs = Date.parse(entry.ts)
  const isDenied = entry.decision?.effect === 'deny'
  const error = outcome?.error ?? entry.decision?.code
  const status = outcome?.status ?? entry.decision?.status
  return {
    target,
    client,
    url: target && urlOf(target),
    startMs: endMs - Math.round(outcome?.dur_ms ?? 0),
    endMs,
    isDenied,
    hasFailed: isDenied || error !== undefined || (status ?? 0) >= 400,
    error,
    status,
  }
}

const DEFAULT_PORTS: Readonly<Record<string, number>> = { http: 80, https: 443, ws: 80, wss: 443 }

function urlOf({ scheme, host, port, path }: NonNullable<Entry['target']>): string {
  const name = host.includes(':') ? `[${host}]` : host
  return `${scheme}://${name}${port === DEFAULT_PORTS[scheme] ? '' : `:${port}`}${path.startsWith('/') ? '' : '/'}${path}`
}

/** The trace that an entry belongs to: the caller's, or one of its own made from the id of the call. */
export interface Trace {
  /** 32 hex digits. */
  readonly id: string
  /** 16 hex digits; undefined for a trace that begins here. */
  readonly parent: string | undefined
  /** W3C trace flags. */
  readonly flags: number
}

export function traceOf({ trace, req }: Exported): Trace | undefined {
  if (trace !== undefined)
    return { id: traceIdOf(trace), parent: trace.slice(36, 52), flags: Number.parseInt(trace.slice(53, 55), 16) }
  const id = req?.replaceAll('-', '')
  return id !== undefined && /^[0-9a-f]{32}$/.test(id) ? { id, parent: undefined, flags: 1 } : undefined
}

/** 16 hex digits, equal for decision and outcome of a call, and in every repetition. */
export function spanIdOf({ log = '', req = '' }: Exported): string {
  return hash('sha256', `${log}\0${req}`, 'hex').slice(0, 16)
}

/** Agent that acted: the last step of the lineage. */
export function agentOf({
  lineage,
}: Entry): { id: string; grant: string | undefined; parent: string | undefined } | undefined {
  const last = lineage?.at(-1)
  if (last?.id === undefined || last.type === 'human') return undefined
  return { id: last.id, grant: last.grant, parent: lineage?.at(-2)?.grant }
}

/** `spiffe://acme.test/agents/triage` is called triage. */
export function nameOf(id: string): string {
  return id.split(/[/:]/).findLast((part) => part !== '') ?? id
}

/** Operations that a grant allows, over all entries of its authority. */
export function scopesOf({ grant }: Exported): string[] {
  const authority = Array.isArray(grant?.authority) ? (grant.authority as readonly unknown[]) : []
  return authority.flatMap((one) => {
    const { operations } = (one ?? {}) as { readonly operations?: unknown }
    return Array.isArray(operations) ? operations.filter((name) => typeof name === 'string') : []
  })
}
