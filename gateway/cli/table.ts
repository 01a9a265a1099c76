/** Text in columns, times, bytes and spans as people read them. Everything that came from an agent is made printable here. */
import { printable } from './log/words.ts'

/** Rows under each other, indented; columns as wide as their widest, but for the last. */
export function columns(rows: readonly (readonly string[])[], indent = 2): string[] {
  const cells = rows.map((row) => row.map(printable))
  const widths = (cells[0] ?? []).map((_, i) => Math.max(...cells.map((row) => row[i]?.length ?? 0)))
  return cells.map((row) => {
    const padded = row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0)))
    return `${' '.repeat(indent)}${padded.join('  ')}`.trimEnd()
  })
}

export function when(ms: number | null | undefined): string {
  return ms === null || ms === undefined ? 'never' : new Date(ms).toISOString().replace('T', ' ').slice(0, 19)
}

export function inBytes(bytes: number): string {
  const [power, unit] = (
    [
      [3, 'GB'],
      [2, 'MB'],
      [1, 'kB'],
    ] as const
  ).find(([n]) => bytes >= 1000 ** n) ?? [0, 'B']
  return `${power === 0 ? bytes : (bytes / 1000 ** power).toFixed(1)} ${unit}`
}

export function inSeconds(seconds: number | null): string {
  if (seconds === null) return 'no end'
  const [size, unit] = (
    [
      [86_400, 'd'],
      [3600, 'h'],
      [60, 'min'],
    ] as const
  ).find(([n]) => seconds >= n) ?? [1, 's']
  return `${Number((seconds / size).toFixed(1))} ${unit}`
}

export function inMs(ms: number | null): string {
  if (ms === null) return 'none measured'
  return ms < 1000 ? `${Math.round(ms)} ms` : inSeconds(ms / 1000)
}

export function counted(n: number, one: string, many = `${one}s`): string {
  return `${n} ${n === 1 ? one : many}`
}
