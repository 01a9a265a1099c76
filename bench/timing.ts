/** One piece of work, done over and over: how long each took, and what it cost. */
import { loadavg } from 'node:os'

export interface Timed {
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  /** Microseconds of this process, all threads, user and system. */
  readonly cpu: number
}

/** @param o.warm how often it is done before. Default a tenth. @param o.at how many at once. Default 1. */
export async function timed(
  count: number,
  work: (i: number) => unknown,
  o: { readonly warm?: number; readonly at?: number } = {},
): Promise<Timed> {
  const { warm = Math.ceil(count / 10), at = 1 } = o
  let next = 0
  for (; next < warm; next++) await work(next)
  const took: number[] = []
  const cpu = process.cpuUsage()
  const lane = async () => {
    while (next < warm + count) {
      const i = next++
      const started = performance.now()
      await work(i)
      took.push(performance.now() - started)
    }
  }
  await Promise.all(Array.from({ length: at }, lane))
  const { user, system } = process.cpuUsage(cpu)
  return { ...quantiles(took), cpu: (user + system) / count }
}

export function quantiles(took: readonly number[]): Pick<Timed, 'p50' | 'p99'> {
  const sorted = took.toSorted((a, b) => a - b)
  const [p50 = 0, p99 = 0] = [0.5, 0.99].map((part) => sorted[Math.floor(sorted.length * part)])
  return { p50, p99 }
}

/** What this machine had to do in the last minute: figures of a busy one say little. */
export function load(): string {
  return loadavg()[0]?.toFixed(1) ?? ''
}

export function row(...cells: readonly (string | number)[]): string {
  return `| ${cells.join(' | ')} |`
}
