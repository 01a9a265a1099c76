/** What processes cost: CPU time from /proc (Linux), and on which processor they run. */

import { readdirSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'

/** `sysconf(_SC_CLK_TCK)`: 100 on every Linux that Node runs on. */
const TICKS_PER_S = 100

/** Microseconds of CPU, user and system, that a process and its children have used so far. */
export function cpuMicroseconds(pid: number): number {
  return [pid, ...childrenOf(pid)].reduce((sum, one) => sum + ticksOf(one), 0) * (1_000_000 / TICKS_PER_S)
}

function ticksOf(pid: number): number {
  const fields = statFields(pid)
  return fields ? Number(fields[11]) + Number(fields[12]) : 0
}

function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((one) => Number(statFields(one)?.[1]) === pid)
}

/** Fields of /proc/PID/stat after the command name, which may hold spaces: state, parent, … */
function statFields(pid: number): string[] | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return text.slice(text.lastIndexOf(')') + 2).split(' ')
  } catch {
    return undefined // it ended meanwhile
  }
}

/**
 * The command on one processor: what is measured has one to itself, the load and the far side share another. On a machine
 * with one processor it stays as it is.
 */
export function onProcessor(
  which: 'measured' | 'load',
  command: readonly [string, ...string[]],
): [string, ...string[]] {
  if (availableParallelism() < 2) return [...command]
  return ['taskset', '-c', which === 'measured' ? '1' : '0', ...command]
}
