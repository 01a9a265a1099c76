/**
 * Numbers that grow while calls pass: plain additions there, and the form that `prom-client` writes out when somebody asks. Its
 * own counters cost several times as much a call.
 */

/** One line of an answer. */
export interface Sample {
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
  /** Of histograms: with `_bucket`, `_sum`, `_count`. */
  readonly metricName?: string
}

export interface Metric {
  readonly name: string
  readonly help: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  samples(): readonly Sample[] | Promise<readonly Sample[]>
}

interface Naming {
  readonly name: string
  readonly help: string
}

/** Counts by the values of its labels, which must come from tables of ours: whatever a caller may choose fills memory. */
export class Counter implements Metric {
  readonly name: string
  readonly help: string
  readonly type = 'counter'
  readonly #labels: readonly string[]
  /** By the first value, then by the second, …: no text is joined for every call. */
  readonly #root: Cell = newCell()

  constructor({ name, help }: Naming, labels: readonly string[]) {
    this.name = name
    this.help = help
    this.#labels = labels
  }

  /** @param values in the order of the labels. */
  add(...values: readonly string[]): void {
    let cell = this.#root
    for (const value of values) {
      let next = cell.below.get(value)
      if (next === undefined) {
        next = newCell()
        cell.below.set(value, next)
      }
      cell = next
    }
    cell.count += 1
  }

  samples(): Sample[] {
    const cells = cellsAt(this.#root, this.#labels.length)
    return cells.map(({ values, count }) => ({ labels: labelled(this.#labels, values), value: count }))
  }
}

interface Cell {
  readonly below: Map<string, Cell>
  count: number
}

function newCell(): Cell {
  return { below: new Map(), count: 0 }
}

function cellsAt(
  { below, count }: Cell,
  depth: number,
): { readonly values: readonly string[]; readonly count: number }[] {
  if (depth === 0) return [{ values: [], count }]
  return [...below].flatMap(([value, cell]) =>
    cellsAt(cell, depth - 1).map((found) => ({ ...found, values: [value, ...found.values] })),
  )
}

interface Series {
  readonly counts: Float64Array
  readonly value: string | undefined
  sum: number
}

/** How many values are at most as large as each bound. */
export class Histogram implements Metric {
  readonly name: string
  readonly help: string
  readonly type = 'histogram'
  readonly #bounds: readonly number[]
  readonly #label: string | undefined
  readonly #series = new Map<string | undefined, Series>()

  /** @param bounds ascending. @param label at most one. */
  constructor({ name, help }: Naming, bounds: readonly number[], label?: string) {
    this.name = name
    this.help = help
    this.#bounds = bounds
    this.#label = label
    if (label === undefined) this.#of(undefined)
  }

  observe(observed: number, value?: string): void {
    const series = this.#of(value)
    let i = 0
    while (i < this.#bounds.length && observed > (this.#bounds[i] as number)) i++
    series.counts[i] = (series.counts[i] ?? 0) + 1
    if (Number.isFinite(observed)) series.sum += observed
  }

  samples(): Sample[] {
    return [...this.#series.values()].flatMap(({ counts, sum, value }) => {
      const labels = this.#label === undefined ? {} : { [this.#label]: value ?? '' }
      let total = 0
      const buckets = [...counts].map((count, i) => {
        total += count
        return {
          labels: { ...labels, le: String(this.#bounds[i] ?? '+Inf') },
          value: total,
          metricName: `${this.name}_bucket`,
        }
      })
      const ends = { sum, count: total }
      return [
        ...buckets,
        ...Object.entries(ends).map(([end, of]) => ({ labels, value: of, metricName: `${this.name}_${end}` })),
      ]
    })
  }

  #of(value: string | undefined): Series {
    const known = this.#series.get(value)
    if (known !== undefined) return known
    const made = { counts: new Float64Array(this.#bounds.length + 1), value, sum: 0 }
    this.#series.set(value, made)
    return made
  }
}

function labelled(names: readonly string[], values: readonly string[]): Record<string, string> {
  return Object.fromEntries(names.map((name, i) => [name, values[i] ?? '']))
}
