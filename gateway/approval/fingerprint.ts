/**
 * The canonical form of what is asked for, and its fingerprint: change anything of it, and it is another request. Keyed, because
 * paths, queries and bodies can be guessed. Pure.
 */
import { createHmac, type KeyObject } from 'node:crypto'
import canonicalize from 'canonicalize'
import type { ApprovalTerms } from '../protocol/approval.ts'
import type { Grant } from '../protocol/grant.ts'
import type { Outbound } from '../protocol/message.ts'
import type { People } from './people.ts'

/** Begins what is hashed: another version of the form gives other fingerprints. */
const FORM = 'keyless approval v2'

/** What leaves of a request, before a credential is attached. */
export type Leaving = Pick<Outbound, 'method' | 'scheme' | 'host' | 'port' | 'path' | 'headers' | 'signed'> & {
  /** Whole; undefined: it has none. */
  readonly body: Buffer | undefined
  readonly isUpgrade: boolean
}

/** `what`: JSON without undefined members. */
export interface Subject {
  /** Who asks. */
  readonly grant: Grant
  /** The same without what is of this attempt alone. Default: all of it counts. */
  readonly identity?: Grant
  readonly operation: string
  readonly terms: ApprovalTerms
  readonly what: object
}

/**
 * Fields that say nothing about what is asked: of the connection, of tracing, of the program, of one attempt among several. They
 * differ from one call to the next, so what is in them is approved along only where the terms name them.
 */
const SILENT: ReadonlySet<string> = new Set([
  ...['accept-encoding', 'content-length', 'date', 'priority', 'sec-websocket-key', 'te', 'user-agent'],
  ...[
    'baggage',
    'b3',
    'elastic-apm-traceparent',
    'newrelic',
    'request-id',
    'sentry-trace',
    'traceparent',
    'tracestate',
  ],
  ...[
    'uber-trace-id',
    'x-amzn-trace-id',
    'x-client-trace-id',
    'x-cloud-trace-context',
    'x-correlation-id',
    'x-request-id',
  ],
  ...['amz-sdk-invocation-id', 'amz-sdk-request', 'x-amz-date', 'x-ms-client-request-id', 'x-ms-date'],
  ...['idempotency-key', 'x-idempotency-key', 'x-goog-gcs-idempotency-token'],
])
const SILENT_FAMILIES = /^x-(?:b3|datadog|stainless)-/

/** Fields that are approved along, `[name, value]`, names in lower case and in order, values as they came. */
export function spokenFields(headers: Leaving['headers'], named: readonly string[]): [string, string][] {
  const fields: [string, string][] = []
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = (headers[i] as string).toLowerCase()
    if (named.includes(name) || !(SILENT.has(name) || SILENT_FAMILIES.test(name)))
      fields.push([name, headers[i + 1] as string])
  }
  return fields.sort(([a], [b]) => order(spelt(a), spelt(b))) // stable: several of one name stay in their order
}

/** CGI and its heirs read both spellings as one field, of which the last, or the first, counts. */
const spelt = (name: string) => name.replaceAll('_', '-')
const order = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)

/** A request as it will leave. */
export function requestForm(
  request: Leaving,
  { fields }: Pick<ApprovalTerms, 'fields'>,
  bodyHash: string | null,
): object {
  const { method, scheme, host, port, path, headers, signed, isUpgrade } = request
  const spoken = spokenFields(headers, fields)
  return { method, scheme, host, port, path, fields: spoken, body: bodyHash, isUpgrade, signed: signed ?? null }
}

/**
 * @param groups as settings have them: where others are in a group that is asked, what was agreed to is asked anew.
 * @returns `hmac:` and base64url. @throws when `what` has no canonical form.
 */
export function fingerprintOf(key: KeyObject, asked: Subject, groups: People['groups']): string {
  const { grant: asking, identity, operation, terms, what } = asked
  const grant = identity ?? asking
  const { tenant, human, agent, task } = grant
  const from = terms.from.toSorted().map((group) => [group, groups.get(group)?.toSorted() ?? []])
  const form = canonicalize({
    ...{ tenant, operation, what },
    human: [human.iss, human.sub],
    agent: agent.id,
    task: [task.id, JSON.stringify(task.purpose)], // lone surrogates have no canonical form, and are told apart
    authority: holdingOf(grant),
    lineage: grant.lineage.map(({ type, id }) => [type, id]),
    terms: { ...terms, from, fields: terms.fields.toSorted(), reuseS: terms.reuseS ?? null },
  })
  return `hmac:${createHmac('sha256', key)
    .update(`${FORM}\n${form ?? ''}`)
    .digest('base64url')}`
}

/**
 * Which grant asks. A root grant that took the place of another (renewed, resumed) is the same one still, as long as human, agent
 * and intent are: an agent that was put to sleep while it waited finds its approval when it wakes.
 */
export function holdingOf({ id, succession }: Pick<Grant, 'id' | 'succession'>): string {
  return succession?.origin ?? id
}
