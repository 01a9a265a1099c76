/**
 * OpenTelemetry, OTLP 1.x in its JSON encoding: every entry is a log record, every ended or denied call also a span. Names are
 * those of the semantic conventions (HTTP stable, `gen_ai.*`); `url.full` has no query, because the log has none.
 */
import { hash } from 'node:crypto'
import type { JsonValue } from '../../audit/canonical.ts'
import { VERSION } from '../../version.ts'
import type { Body } from './body.ts'
import { agentOf, type Call, callOf, nameOf, spanIdOf, traceOf } from './call.ts'
import type { Exported, Item } from './item.ts'

type AnyValue =
  | { readonly stringValue: string }
  | { readonly boolValue: boolean }
  | { readonly intValue: string }
  | { readonly doubleValue: number }
  | { readonly arrayValue: { readonly values: readonly AnyValue[] } }
  | { readonly kvlistValue: { readonly values: readonly KeyValue[] } }
  | Readonly<Record<never, never>>

interface KeyValue {
  readonly key: string
  readonly value: AnyValue
}

const SCOPE = { name: 'keyless', version: VERSION } as const
const SPAN_KIND_CLIENT = 3
const STATUS_ERROR = 2

/** Logs and traces go to two places of a receiver; a batch without calls has no traces. */
export function otlpBodies(items: readonly Item[]): Body[] {
  const spans = items.filter(isSpan)
  const logs = grouped(items, (records) => ({ scopeLogs: [{ scope: SCOPE, logRecords: records.map(logRecord) }] }))
  const traces = grouped(spans, (calls) => ({ scopeSpans: [{ scope: SCOPE, spans: calls.map(span) }] }))
  return [
    { path: 'v1/logs', text: `${JSON.stringify({ resourceLogs: logs })}\n` },
    ...(spans.length > 0
      ? [{ path: 'v1/traces' as const, text: `${JSON.stringify({ resourceSpans: traces })}\n` }]
      : []),
  ]
}

export function otlpRow(item: Item): string {
  return JSON.stringify(logRecord(item))
}

function isSpan({ entry }: Item): boolean {
  return entry.kind === 'call.outcome' || (entry.kind === 'call.decision' && entry.decision?.effect === 'deny')
}

/** One resource for each run of the gateway that follows another in the log. */
function grouped<Part extends object>(items: readonly Item[], part: (items: readonly Item[]) => Part) {
  const groups: Item[][] = []
  for (const item of items) {
    const last = groups.at(-1)
    if (last?.[0] && last[0].entry.gw?.boot === item.entry.gw?.boot) last.push(item)
    else groups.push([item])
  }
  return groups.map((group) => ({ resource: { attributes: resourceOf(group[0]?.entry) }, ...part(group) }))
}

function resourceOf(entry: Exported | undefined): KeyValue[] {
  return attributes({
    'service.name': 'keyless',
    'service.namespace': entry?.log,
    'service.version': entry?.gw?.ver ?? VERSION,
    'service.instance.id': entry?.gw?.boot,
    'host.name': entry?.gw?.node,
  })
}

function logRecord(item: Item) {
  const { entry, uid } = item
  const trace = traceOf(entry)
  const [severityNumber, severityText] = severityOf(entry)
  return {
    timeUnixNano: nanos(Date.parse(entry.ts)),
    observedTimeUnixNano: nanos(Date.parse(entry.ts)),
    severityNumber,
    severityText,
    eventName: `keyless.${entry.kind}`,
    body: anyValue(entry as unknown as JsonValue),
    attributes: attributes({
      'log.record.uid': uid,
      ...(entry.kind.startsWith('call.') ? callAttributes(item) : common(entry)),
    }),
    ...(trace && { traceId: trace.id, spanId: spanIdOf(entry), flags: trace.flags }),
  }
}

function span(item: Item) {
  const { entry } = item
  const call = callOf(item)
  const trace = traceOf(entry) ?? { id: hash('sha256', item.uid, 'hex').slice(0, 32), parent: undefined, flags: 1 }
  const error = errorOf(call)
  return {
    traceId: trace.id,
    spanId: spanIdOf(entry),
    ...(trace.parent !== undefined && { parentSpanId: trace.parent }),
    // Bits 8 and 9: it is known that the parent is in another process.
    flags: trace.parent === undefined ? trace.flags : trace.flags | 0x300,
    name: [call.target?.method, call.target?.operation].filter((part) => part !== undefined).join(' ') || 'call',
    kind: SPAN_KIND_CLIENT,
    startTimeUnixNano: nanos(call.startMs),
    endTimeUnixNano: nanos(call.endMs),
    attributes: attributes(callAttributes(item)),
    status: error === undefined ? {} : { code: STATUS_ERROR, message: entry.decision?.detail ?? error },
  }
}

type Attributes = Readonly<Record<string, JsonValue | undefined>>

function callAttributes(item: Item): Attributes {
  const { entry } = item
  const call = callOf(item)
  const { target, client } = call
  return {
    ...common(entry),
    'http.request.method': target?.method,
    'http.response.status_code': call.status,
    'url.full': call.url,
    'url.scheme': target?.scheme,
    'url.path': target?.path,
    'server.address': target?.host,
    'server.port': target?.port,
    'client.address': client?.ip,
    'user_agent.original': client?.ua,
    'error.type': errorOf(call),
    'http.request.body.size': entry.outcome?.bytes_out,
    'http.response.body.size': entry.outcome?.bytes_in,
    'gen_ai.operation.name': 'execute_tool',
    'gen_ai.tool.name': target?.operation,
    'keyless.service': target?.service,
    'keyless.decision': (entry.decision ?? item.decision?.decision)?.effect,
    'keyless.policies': (entry.decision ?? item.decision?.decision)?.policy_ids,
    'keyless.credential': entry.cred?.credential,
    'keyless.credential.ephemeral': entry.cred?.ephemeral,
  }
}

function common(entry: Exported): Attributes {
  const agent = agentOf(entry)
  return {
    'gen_ai.agent.id': agent?.id,
    'gen_ai.agent.name': agent && nameOf(agent.id),
    'gen_ai.conversation.id': entry.task?.id,
    'enduser.id': entry.human?.sub,
    'keyless.kind': entry.kind,
    'keyless.request.id': entry.req,
    'keyless.tenant': entry.tenant,
    'keyless.lineage.hash': entry.lineage_hash,
    'keyless.lineage': entry.lineage?.map(({ id }) => id ?? '…'),
    'keyless.grant.id': entry.grant?.id ?? agent?.grant,
  }
}

function errorOf({ error, status, isDenied }: Call): string | undefined {
  if (error !== undefined) return error
  if (isDenied) return 'denied'
  return status !== undefined && status >= 400 ? String(status) : undefined
}

function severityOf({ kind, decision }: Exported): readonly [number, string] {
  if (kind.startsWith('leak.')) return [17, 'ERROR']
  const isNotable = decision?.effect === 'deny' || kind === 'grant.failed' || kind === 'log.recovered'
  return isNotable ? [13, 'WARN'] : [9, 'INFO']
}

function attributes(named: Attributes): KeyValue[] {
  return Object.entries(named).flatMap(([key, value]) => (value === undefined ? [] : [{ key, value: anyValue(value) }]))
}

/** 64-bit integers are strings in the JSON encoding of OTLP, and null is a value without a member. */
function anyValue(value: JsonValue): AnyValue {
  if (typeof value === 'string') return { stringValue: value }
  if (typeof value === 'boolean') return { boolValue: value }
  if (typeof value === 'number')
    return Number.isSafeInteger(value) ? { intValue: String(value) } : { doubleValue: value }
  if (value === null) return {}
  if (Array.isArray(value)) return { arrayValue: { values: value.map(anyValue) } }
  return { kvlistValue: { values: attributes(value as Attributes) } }
}

function nanos(ms: number): string {
  return `${ms}000000`
}
