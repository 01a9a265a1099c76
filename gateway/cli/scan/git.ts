/**
 * Every object of a repository's history, by git's plumbing: nothing that a repository can configure is run (no diff drivers, filters,
 * hooks, pagers, signature programs, no fetching of what is missing), and every object is read once, in whatever commit it is.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Place } from './places.ts'

const SAFE = [
  ...['--no-pager', '--no-replace-objects', '-c', 'core.fsmonitor=false', '-c', 'core.hooksPath=/dev/null'],
  ...['-c', 'core.alternateRefsCommand=', '-c', 'protocol.allow=never', '-c', 'extensions.partialClone='],
]

function git(path: string, args: readonly string[], input: 'ignore' | 'pipe'): ChildProcess {
  // Only what git needs to be found: GIT_DIR and others would lead elsewhere, GIT_EXTERNAL_DIFF and GIT_SSH would be run.
  const env = {
    PATH: process.env.PATH,
    HOME: '/nonexistent',
    GIT_CONFIG_GLOBAL: '/dev/null',
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_NO_LAZY_FETCH: '1',
    GIT_OPTIONAL_LOCKS: '0',
    GIT_TERMINAL_PROMPT: '0',
    LC_ALL: 'C',
  }
  return spawn('git', ['-C', path, ...SAFE, ...args], { env, stdio: [input, 'pipe', 'pipe'] })
}

/** @throws {Error} in git's words. */
export async function* historyOf(path: string): AsyncGenerator<Place, void> {
  const list = git(path, ['rev-list', '--objects', '--all', '--reflog'], 'ignore')
  const read = git(path, ['cat-file', '--batch=%(objectname) %(objecttype) %(objectsize) %(rest)', '--buffer'], 'pipe')
  const ended = [list, read].map(endOf)
  try {
    if (list.stdout && read.stdin) list.stdout.pipe(read.stdin)
    read.stdin?.on('error', () => undefined) // it ended: why is what it says
    const source = new Pieces(read.stdout as AsyncIterable<Buffer>)
    for (let head = await source.line(); head !== undefined; head = await source.line()) {
      const [id = '', type = '', size = '', ...rest] = head.split(' ')
      if (type === 'missing' || size === '') continue
      const name = `git:${id.slice(0, 12)}:${rest.join(' ') || type}`
      // Trees are names and ids; what they name is listed by itself.
      const isRead = type !== 'tree'
      const chunks = source.bytes(Number(size))
      if (isRead) yield { name, chunks }
      for await (const _ of chunks); // what was not read
      await source.skip(1)
    }
    for (const failure of await Promise.all(ended)) if (failure !== undefined) throw new Error(failure)
  } finally {
    list.kill()
    read.kill()
  }
}

/** @returns why it failed. */
async function endOf(child: ChildProcess): Promise<string | undefined> {
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    if (said.length < 500) said += chunk.toString('utf8')
  })
  try {
    const [code] = (await once(child, 'close')) as [number | null]
    return code === 0 ? undefined : said.trim().slice(0, 500) || `git ended with ${code}`
  } catch (cause) {
    return `git cannot be run: ${(cause as Error).message}`
  }
}

/** A stream read by lines and by counted bytes. */
class Pieces {
  readonly #source: AsyncIterator<Buffer>
  #rest: Buffer = Buffer.alloc(0)

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  async line(): Promise<string | undefined> {
    for (;;) {
      const at = this.#rest.indexOf(0x0a)
      if (at !== -1) {
        const line = this.#rest.subarray(0, at).toString('utf8')
        this.#rest = this.#rest.subarray(at + 1)
        return line
      }
      if (!(await this.#more(true))) return undefined
    }
  }

  async *bytes(count: number): AsyncGenerator<Buffer, void> {
    let left = count
    while (left > 0) {
      if (this.#rest.length === 0 && !(await this.#more(false))) throw new Error('git said less than it announced')
      const piece = this.#rest.subarray(0, left)
      this.#rest = this.#rest.subarray(piece.length)
      left -= piece.length
      yield piece
    }
  }

  async skip(count: number): Promise<void> {
    for await (const _ of this.bytes(count));
  }

  async #more(isJoined: boolean): Promise<boolean> {
    const { value, done } = await this.#source.next()
    if (done === true) return false
    this.#rest = isJoined && this.#rest.length > 0 ? Buffer.concat([this.#rest, value]) : value
    return true
  }
}
