/**
 * ArcSight CEF in syslog lines of RFC 5424: `<pri>1 time host keyless boot kind - CEF:0|…`. One line is one entry, whatever bytes
 * a value has: what could end a field, a line or a header is escaped.
 */

import { VERSION } from '../../version.ts'
import { agentOf, callOf } from './call.ts'
import type { Item } from './item.ts'

/** RFC 5424 §6.2.1: log audit. */
const FACILITY = 13
const [NOTICE, WARNING] = [5, 4] as const

type Extension = Readonly<Record<string, string | number | undefined>>

export function cefRow(item: Item): string {
  const { entry } = item
  const severity = severityOf(item)
  const priority = FACILITY * 8 + (severity >= 6 ? WARNING : NOTICE)
  const [host, boot, kind] = [entry.gw?.node, entry.gw?.boot, entry.kind]
  const head = `<${priority}>1 ${entry.ts} ${word(host, 255)} keyless ${word(boot, 128)} ${word(kind, 32)} -`
  const cef = ['CEF:0', 'Keyless', 'Keyless', entry.gw?.ver ?? VERSION, entry.kind, nameOf(item), String(severity)]
  return `${head} ${cef.map(inHeader).join('|')}|${extension(item)}`
}

function nameOf(item: Item): string {
  const { entry } = item
  if (!entry.kind.startsWith('call.')) return entry.kind
  const { isDenied, target } = callOf(item)
  return `${target?.operation ?? target?.method ?? 'call'} ${isDenied ? 'denied' : entry.outcome ? 'ended' : 'allowed'}`
}

/** 0 to 10. */
function severityOf(item: Item): number {
  const { kind } = item.entry
  if (kind.startsWith('leak.')) return 9
  if (kind === 'grant.failed' || kind === 'log.recovered' || item.entry.decision?.effect === 'deny') return 6
  return (callOf(item).status ?? 0) >= 400 ? 4 : 2
}

function extension(item: Item): string {
  const { entry, uid } = item
  const call = callOf(item)
  const { target, client } = call
  const said = entry.decision ?? item.decision?.decision
  const members: Extension = {
    externalId: uid,
    rt: Date.parse(entry.ts),
    act: said?.effect,
    outcome: entry.outcome || call.isDenied ? (call.hasFailed ? 'failure' : 'success') : undefined,
    reason: call.error,
    src: client?.ip,
    dhost: target?.host,
    dpt: target?.port,
    app: target?.scheme,
    requestMethod: target?.method,
    request: call.url,
    requestClientApplication: client?.ua,
    suser: entry.human?.sub,
    sntdom: entry.human?.iss,
    in: entry.outcome?.bytes_in,
    out: entry.outcome?.bytes_out,
    start: entry.outcome && call.startMs,
    end: entry.outcome && call.endMs,
    msg: entry.decision?.detail ?? entry.task?.purpose,
    ...labelled('cs', [
      ['agent', agentOf(entry)?.id],
      ['task', entry.task?.id],
      ['lineage', entry.lineage?.map(({ id }) => id ?? '…').join(' > ')],
      ['policies', said?.policy_ids?.join(' ')],
      ['request', entry.req],
      ['credential', entry.cred?.credential ?? text(entry.facts?.cred_id)],
    ]),
    ...labelled('cn', [['status', call.status]]),
  }
  return Object.entries(members)
    .flatMap(([key, value]) => (value === undefined ? [] : [`${key}=${inExtension(String(value))}`]))
    .join(' ')
}

/** CEF's own keys for what it has no name for: `cs1=… cs1Label=agent`. */
function labelled(prefix: 'cs' | 'cn', values: readonly (readonly [string, string | number | undefined])[]): Extension {
  return Object.fromEntries(
    values.flatMap(([label, value], i) =>
      value === undefined
        ? []
        : [
            [`${prefix}${i + 1}`, value],
            [`${prefix}${i + 1}Label`, label],
          ],
    ),
  )
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** Pipe and backslash end or escape a field; a header has one line. */
function inHeader(value: string): string {
  return value.replaceAll(/[\\|]/g, '\\$&').replaceAll(CONTROLS, ' ')
}

function inExtension(value: string): string {
  return value
    .replaceAll(/[\\=]/g, '\\$&')
    .replaceAll(/\r\n?|\n/g, '\\n')
    .replaceAll(CONTROLS, ' ')
}

/** Whatever some reader ends a line at: controls, U+0085, U+2028 and U+2029. */
const CONTROLS = /[\p{Cc}\p{Zl}\p{Zp}]/gu

/** A field of the RFC 5424 header: printable ASCII without spaces, or `-`. */
function word(value: string | undefined, max: number): string {
  return (value ?? '').replaceAll(/[^\x21-\x7e]/g, '').slice(0, max) || '-'
}
