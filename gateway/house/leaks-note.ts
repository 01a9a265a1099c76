/** What the log is told of leaks: by whom, of what, and never a credential. */
import { setTimeout as pause } from 'node:timers/promises'
import type { Audit } from '../audit/audit.ts'
import type { Grant } from '../protocol/grant.ts'
import { grantsIn } from '../protocol/grant-text.ts'
import type { LeakReport } from '../protocol/leak.ts'

export type Facts = Parameters<Audit['record']>[2]

/** So long an end waits for the log. */
const RECORD_MS = 500
/** Characters of what a reporter says. */
const MAX_SAID = 200

interface Note {
  readonly facts: Facts
  readonly grant: Grant | undefined
  readonly tenant: string
}

/** In the log, or on its way there: what it tells of must not outlast a disk that hangs. Never rejects. */
export async function noted(
  kind: 'leak.reported' | 'leak.canary_used',
  { facts, grant, tenant }: Note,
  audit: Pick<Audit, 'record' | 'recordUnder' | 'late'>,
): Promise<void> {
  const written = grant ? audit.recordUnder(kind, grant, facts) : audit.record(kind, tenant, facts)
  const settled = written.then(
    () => undefined,
    () => audit.late(kind, { tenant }, facts),
  )
  const stop = new AbortController()
  const waited = pause(RECORD_MS, undefined, { signal: stop.signal, ref: false }).catch(() => undefined)
  await Promise.race([settled, waited])
  stop.abort()
}

export function partyOf({ id, agent }: Grant) {
  return { grant: id, agent: agent.id }
}

export function reasonOf(from: string): string {
  return `Reported as leaked by ${from}.`
}

/**
 * In the words of the reporter: without control characters, which would end a line, and without whatever holds a credential, query and
 * user of a URL included.
 */
export function saidOf({ token, type, source, url }: LeakReport) {
  const safe = (text: string | undefined) => {
    const plain = text?.replaceAll(token, '…').replaceAll(/\p{C}/gu, ' ')
    // Looked at before it is cut: most of a handle is not to be known for one.
    return plain === undefined || !grantsIn(plain).next().done ? undefined : plain.slice(0, MAX_SAID)
  }
  const said = {
    type: safe(type),
    source: safe(source),
    url: safe(url?.replace(/[?#].*$/s, '').replace(/\/\/[^/]*@/, '//')),
  }
  return Object.fromEntries(Object.entries(said).filter(([, value]) => value !== undefined))
}
