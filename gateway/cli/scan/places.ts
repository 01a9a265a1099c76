/** Where `keyless scan` reads: files below a path, standard input, the environment. Follows no links, opens nothing but files. */
import { createReadStream } from 'node:fs'
import { lstat, readdir } from 'node:fs/promises'
import { join, matchesGlob } from 'node:path'

export interface Place {
  readonly name: string
  readonly chunks: AsyncIterable<Buffer> | Iterable<Buffer>
}

/** @throws {Error} when the path itself cannot be read. @param skipped is told of what below it cannot. */
export async function* filesAt(
  path: string,
  exclude: readonly string[],
  skipped: (name: string, cause: Error) => void,
): AsyncGenerator<Place, void> {
  const found = await lstat(path)
  if (found.isFile()) {
    yield fileAt(path)
    return
  }
  if (!found.isDirectory()) throw new Error(`${path} is neither a file nor a directory`)
  const open = [path]
  for (let dir = open.pop(); dir !== undefined; dir = open.pop()) {
    const entries = await readdir(dir, { withFileTypes: true }).catch((cause: Error) => {
      if (dir === path) throw cause
      skipped(dir as string, cause)
      return []
    })
    for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const name = join(dir, entry.name)
      const inner = name.slice(path.length).replace(/^\//, '')
      if (exclude.some((glob) => matchesGlob(inner, glob) || entry.name === glob)) continue
      if (entry.isDirectory() && entry.name !== '.git') open.push(name)
      else if (entry.isFile()) yield fileAt(name)
    }
  }
}

function fileAt(name: string): Place {
  return { name, chunks: createReadStream(name, { highWaterMark: 128 * 1024 }) }
}

export function standardInput(): Place {
  return { name: '-', chunks: process.stdin }
}

/** A line for each variable. */
export function environment(env: NodeJS.ProcessEnv): Place[] {
  return Object.entries(env).map(([name, value = '']) => ({
    name: `env:${name}`,
    chunks: [Buffer.from(`${name}=${value}`)],
  }))
}
