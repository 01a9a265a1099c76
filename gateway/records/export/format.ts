/** The formats, joined by one table. A format turns items into text and knows nothing of where it goes. */
import type { FormatName } from '../../protocol/exporting.ts'
import type { Body } from './body.ts'
import { cefRow } from './cef.ts'
import type { Item } from './item.ts'
import { jsonlRow } from './jsonl.ts'
import { ocsfRow } from './ocsf.ts'
import { otlpBodies, otlpRow } from './otlp.ts'

export interface Format {
  readonly contentType: string
  /** `json`: a row is one JSON value. */
  readonly row: (item: Item) => string
  readonly rowType: 'json' | 'text'
  /** For sinks that take many at once. */
  readonly bodies: (items: readonly Item[]) => Body[]
  /** Receivers of this format unpack gzip. */
  readonly isZipped: boolean
}

export const formats: Readonly<Record<FormatName, Format>> = {
  jsonl: lines('application/x-ndjson', 'json', jsonlRow),
  ocsf: lines('application/x-ndjson', 'json', ocsfRow),
  otlp: { contentType: 'application/json', row: otlpRow, rowType: 'json', bodies: otlpBodies, isZipped: true },
  cef: lines('text/plain; charset=utf-8', 'text', cefRow),
}

function lines(contentType: string, rowType: 'json' | 'text', row: (item: Item) => string): Format {
  const bodies = (items: readonly Item[]) => [{ text: items.map((item) => `${row(item)}\n`).join('') }]
  return { contentType, row, rowType, bodies, isZipped: false }
}
