/** The environment of a thread of ours: what it is given by name, and nothing else of the process's. */
import { getCompileCacheDir } from 'node:module'
import { dirname } from 'node:path'

/**
 * With the place where the process keeps its compiled code, if it has one: most of a thread's start is compiling. It is not in
 * the environment of the process any more, so that no command that is started from there finds it (`keyless.ts`).
 */
export function threadEnv(given: Readonly<Record<string, string>> = {}): Record<string, string> {
  const compiled = getCompileCacheDir() // of this version of the runtime, in the place that was named
  return { ...given, ...(compiled !== undefined && { NODE_COMPILE_CACHE: dirname(compiled) }) }
}
