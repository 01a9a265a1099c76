/** What an OTLP receiver accepts in JSON, from the protocol's own descriptors: anything else is refused, as protobuf would. */
import { readFile } from 'node:fs/promises'
import { Ajv2020 } from 'ajv/dist/2020.js'

const { $defs } = JSON.parse(await readFile(new URL('../../vectors/otlp-1.json', import.meta.url), 'utf8'))
const ajv = new Ajv2020({ strict: false, allErrors: true })
const validators = {
  logs: ajv.compile({ $ref: '#/$defs/ExportLogsServiceRequest', $defs }),
  traces: ajv.compile({ $ref: '#/$defs/ExportTraceServiceRequest', $defs }),
}

export type Attributes = Readonly<Record<string, unknown>>

/** @returns what is wrong with it. */
export function otlpFaults(path: string, body: unknown): string[] {
  const validate = path.endsWith('/logs') ? validators.logs : validators.traces
  return validate(body)
    ? []
    : (validate.errors ?? []).map((e) => `${e.instancePath} ${e.message} ${JSON.stringify(e.params)}`)
}

/** `[{ key, value: { stringValue } }]` as an object. */
export function plain(list: readonly { key: string; value: Record<string, never> }[]): Attributes {
  return Object.fromEntries(list.map(({ key, value }) => [key, read(value)]))
}

function read(value: Record<string, never>): unknown {
  const [[type, inner] = ['', null]] = Object.entries(value) as [string, unknown][]
  if (type === 'arrayValue') return ((inner as { values?: [] }).values ?? []).map(read)
  if (type === 'kvlistValue') return plain((inner as { values: [] }).values)
  return type === 'intValue' ? Number(inner) : inner
}
