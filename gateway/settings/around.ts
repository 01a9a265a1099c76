/** What a setting is read in: the directory that paths are relative to, and where its faults are told. */
import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join, resolve } from 'node:path'
import type { SettingsProblem } from './explain.ts'

export interface Surroundings {
  readonly baseDir: string
  readonly file: string | undefined
  readonly report: (path: readonly string[], problem: Omit<SettingsProblem, 'path' | 'line'>) => void
}

/** Relative paths are relative to the settings file; `~/` is the home of whoever runs the gateway. */
export function absolutePath(path: string, around: Surroundings): string {
  return resolve(around.baseDir, path.startsWith('~/') ? join(homedir(), path.slice(2)) : path)
}

/** Undefined: it cannot be read. */
export function readText(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return undefined
  }
}
