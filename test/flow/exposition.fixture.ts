/**
 * Prometheus text format 0.0.4, read by its grammar and no more: names, escapes, one TYPE before its samples, families in one piece,
 * no sample twice, and histograms that are cumulative up to +Inf. https://prometheus.io/docs/instrumenting/exposition_formats/
 */
export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Family {
  readonly type: string
  readonly samples: readonly Sample[]
}

const NAME = '[a-zA-Z_:][a-zA-Z0-9_:]*'
const LINE = new RegExp(`^(${NAME})(?:\\{(.*)\\})? (\\S+)$`)
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)/y
const NUMBER = /^(?:[+-]?Inf|NaN|[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/

const TYPE = new RegExp(`^# TYPE (${NAME}) (counter|gauge|histogram)$`)

/** @throws {Error} naming the line that a scraper would refuse. */
export function parseExposition(text: string): ReadonlyMap<string, Family> {
  if (!text.endsWith('\n')) throw new Error('the last line has no line feed')
  const families = new Map<string, { type: string; samples: Sample[] }>()
  let current = ''
  for (const line of text.split('\n').filter((one) => one !== '' && !one.startsWith('# HELP '))) {
    const [, declared, type = ''] = TYPE.exec(line) ?? []
    if (declared !== undefined && families.has(declared)) throw new Error(`${declared} is declared twice`)
    if (declared !== undefined) families.set(declared, { type, samples: [] })
    current = declared ?? current
    if (declared === undefined) place(sampleIn(line), current, families.get(current))
  }
  for (const [name, { type, samples }] of families) {
    const named = samples.map((one) => one.name + JSON.stringify(Object.entries(one.labels).toSorted()))
    if (new Set(named).size < named.length) throw new Error(`${name} says something twice`)
    if (type === 'histogram') checkHistogram(name, samples)
  }
  return families
}

function place(sample: Sample, family: string, of: { type: string; samples: Sample[] } | undefined): void {
  const base = of?.type === 'histogram' ? sample.name.replace(/_(bucket|sum|count)$/, '') : sample.name
  if (of === undefined || base !== family) throw new Error(`out of place: ${sample.name}`)
  of.samples.push(sample)
}

function sampleIn(line: string): Sample {
  const [, name, text = '', number = ''] = LINE.exec(line) ?? []
  if (name === undefined || !NUMBER.test(number)) throw new Error(`no sample: ${line}`)
  const labels: Record<string, string> = {}
  LABEL.lastIndex = 0
  while (LABEL.lastIndex < text.length) {
    const [, label, value] = LABEL.exec(text) ?? []
    if (label === undefined || value === undefined) throw new Error(`no labels: ${line}`)
    labels[label] = value.replace(/\\(.)/g, (_, one) => (one === 'n' ? '\n' : one))
  }
  return { name, labels, value: Number(number.replace('Inf', 'Infinity')) }
}

function checkHistogram(name: string, samples: readonly Sample[]): void {
  const series = Map.groupBy(samples, ({ labels: { le: _, ...rest } }) => JSON.stringify(rest))
  for (const [labels, all] of series) {
    const buckets = all.filter((one) => one.name === `${name}_bucket`)
    const bounds = buckets.map(({ labels: { le = '' } }) => Number(le.replace('+Inf', 'Infinity')))
    const counts = buckets.map(({ value }) => value)
    const total = all.find((one) => one.name === `${name}_count`)?.value
    const isRising = (list: readonly number[]) => list.every((one, i) => i === 0 || one >= (list[i - 1] ?? 0))
    const isWhole = bounds.at(-1) === Number.POSITIVE_INFINITY && counts.at(-1) === total
    if (!isRising(bounds) || !isRising(counts) || !isWhole || !all.some((one) => one.name === `${name}_sum`))
      throw new Error(`${name}${labels} is no histogram`)
  }
}
