/** OTLP, CEF and JSON lines: what a receiver reads is what the entry says, whatever bytes it holds. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cefRow } from '../../../gateway/records/export/cef.ts'
import { formats } from '../../../gateway/records/export/format.ts'
import { createItems, type Item } from '../../../gateway/records/export/item.ts'
import { createMask } from '../../../gateway/records/export/mask.ts'
import { entryBytes, itemsOf, KEY, LOG, samples, TRACEPARENT } from './entries.fixture.ts'
import { otlpFaults, plain } from './otlp.fixture.ts'

type Span = Record<string, never> & {
  name: string
  attributes: never
  traceId: string
  parentSpanId?: string
  spanId: string
}

function otlp(entries = samples) {
  const [logs, traces] = formats.otlp.bodies(itemsOf(entries))
  const spans: Span[] = JSON.parse(traces?.text ?? '{"resourceSpans":[]}').resourceSpans.flatMap(
    (one: { scopeSpans: { spans: [] }[] }) => one.scopeSpans[0]?.spans ?? [],
  )
  return { logs: JSON.parse(logs?.text ?? ''), traces: traces && JSON.parse(traces.text), spans }
}

describe('OTLP', () => {
  it('is valid by the descriptors of the protocol, logs and traces, entry by entry and together', () => {
    for (const entries of [samples, ...samples.map((one) => [one])]) {
      const { logs, traces } = otlp(entries)
      expect(otlpFaults('v1/logs', logs)).toEqual([])
      if (traces) expect(otlpFaults('v1/traces', traces)).toEqual([])
    }
    expect(
      otlpFaults('v1/logs', { resourceLogs: [{ scopeLogs: [{ logRecords: [{ timeUnixNano: 1 }] }] }] }),
    ).not.toEqual([])
  })

  it('has one log record for each entry, named after its kind, with its id and the entry as its body', () => {
    const { logs } = otlp()
    const records = logs.resourceLogs[0].scopeLogs[0].logRecords
    expect(records.map((one: { eventName: string }) => one.eventName)).toEqual(
      samples.map(({ kind }) => `keyless.${kind}`),
    )
    for (const [i, record] of records.entries()) {
      expect(plain(record.attributes)['log.record.uid']).toBe(`${LOG}:${i}`)
      expect(plain(record.body.kvlistValue.values)).toEqual(JSON.parse(String(entryBytes()[i])))
    }
  })

  it('has one span for each call that ended or was denied, under the span of the caller', () => {
    const { spans } = otlp()
    expect(spans.map(({ name }) => name)).toEqual(['GET github:issues.read', 'PURGE', 'GET github:issues.read', 'call'])
    const [span] = spans as [Span]
    expect(span).toMatchObject({ traceId: TRACEPARENT.slice(3, 35), parentSpanId: TRACEPARENT.slice(36, 52), kind: 3 })
    expect(Number(span.endTimeUnixNano) - Number(span.startTimeUnixNano)).toBe(12_000_000)
    expect(plain(span.attributes)).toMatchObject({
      'http.request.method': 'GET',
      'http.response.status_code': 200,
      'url.full': 'https://api.github.com/repos/acme/site/issues',
      'server.address': 'api.github.com',
      'server.port': 443,
      'gen_ai.agent.id': 'spiffe://acme.test/agents/triage',
      'gen_ai.agent.name': 'triage',
      'gen_ai.conversation.id': 'task_42',
      'gen_ai.operation.name': 'execute_tool',
      'gen_ai.tool.name': 'github:issues.read',
    })
    expect(plain((spans[1] as Span).attributes)).toMatchObject({
      'error.type': 'policy_denied',
      'url.full': 'https://[::1]:8443/repos/acme/site/issues',
    })
    expect(spans[1]?.status).toMatchObject({ code: 2 })
  })

  it('gives decision, outcome and span of a call the same ids, and no two calls the same', () => {
    const { logs, spans } = otlp()
    const records = logs.resourceLogs[0].scopeLogs[0].logRecords as Span[]
    expect(new Set([records[5]?.spanId, records[7]?.spanId, spans[0]?.spanId]).size).toBe(1)
    expect(spans[1]?.spanId).not.toBe(spans[0]?.spanId)
  })

  it('gives every run of a gateway a resource of its own', () => {
    const later = { ...samples[0], gw: { boot: 'later', node: 'gw-1', ver: '0.1.1' } }
    const { logs } = otlp([...samples, later])
    expect(logs.resourceLogs).toHaveLength(2)
    expect(plain(logs.resourceLogs[1].resource.attributes)).toMatchObject({
      'service.name': 'keyless',
      'service.version': '0.1.1',
      'service.instance.id': 'later',
    })
  })
})

describe('JSON lines', () => {
  it('are the canonical bytes themselves, so that a proof fits them', () => {
    expect(formats.jsonl.bodies(itemsOf())).toEqual([
      {
        text: entryBytes()
          .map((bytes) => `${bytes}\n`)
          .join(''),
      },
    ])
  })
})

/** A reader of RFC 5424 and CEF, after their texts. */
function readCef(line: string): { header: string[]; extension: Record<string, string> } {
  const head = /^<(\d{1,3})>1 (\S+) (\S{1,255}) (\S{1,48}) (\S{1,128}) (\S{1,32}) - (CEF:.*)$/s.exec(line)
  if (!head) throw new Error(`no RFC 5424 line: ${line}`)
  const fields = /^((?:\\.|[^\\|])*\|){7}/s.exec(head[7] as string)?.[0] as string
  const header = fields.split(/(?<!\\)(?:\\\\)*\|/).slice(0, 7)
  const extension: Record<string, string> = {}
  for (const [, key, value] of (head[7] as string)
    .slice(fields.length)
    .matchAll(/(\w+)=((?:\\.|[^\\=])*)(?= \w+=|$)/gs))
    extension[key as string] = (value as string).replaceAll(/\\(.)/gs, (_, char: string) =>
      char === 'n' ? '\n' : char,
    )
  return { header, extension }
}

function cefOf(entry: Record<string, unknown>): string {
  const [bytes] = entryBytes([entry])
  return cefRow(createItems(createMask([], KEY), false).read(bytes as Buffer, LOG) as Item)
}

describe('CEF', () => {
  it('says of a call who, what, where to and how it ended', () => {
    const line = cefRow(itemsOf()[7] as Item)
    expect(readCef(line)).toMatchObject({
      header: ['CEF:0', 'Keyless', 'Keyless', '0.1.0', 'call.outcome', 'github:issues.read ended', '2'],
      extension: {
        externalId: `${LOG}:7`,
        act: 'allow',
        outcome: 'success',
        src: '10.1.2.3',
        suser: 'ana@acme.test',
        request: 'https://api.github.com/repos/acme/site/issues',
        cs1: 'spiffe://acme.test/agents/triage',
        cs1Label: 'agent',
        cn1: '200',
      },
    })
  })

  it('keeps every entry on one line of one event, whatever an agent puts into its values', () => {
    const forged = fc.oneof(
      fc.string({ unit: 'grapheme' }),
      fc.string({
        unit: fc.constantFrom(
          '|',
          '\\',
          '=',
          '\n',
          '\r',
          '\u2028',
          '\u0085',
          '\u0000',
          ' ',
          'act=allow',
          'CEF:0|',
          '<13>1 ',
        ),
      }),
    )
    fc.assert(
      fc.property(forged, forged, forged, (ua, purpose, operation) => {
        const line = cefOf({
          ...samples[5],
          client: { ip: '10.1.2.3', mode: 'forward', ua },
          task: { id: 't', purpose },
          target: { ...(samples[5]?.target as object), operation },
          decision: { effect: 'deny' },
        })
        expect(line).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}]/u)
        const { header, extension } = readCef(line)
        expect(header).toHaveLength(7)
        expect(extension.act).toBe('deny')
        const written = ua.replaceAll(/\r\n?/g, '\n').replaceAll(/(?!\n)[\p{Cc}\p{Zl}\p{Zp}]/gu, ' ')
        expect(extension.requestClientApplication).toBe(written)
      }),
      { numRuns: 300 },
    )
  })
})
