/**
 * A real PostgreSQL: the one at `POSTGRES_URL`, else the newest that is installed. Without any, tests that need it fail: in CI that
 * is a broken machine, elsewhere a message says what to install.
 */
import { randomUUID } from 'node:crypto'
import { chownSync, existsSync, globSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { Client } from 'pg'
import { freePort } from './ports.ts'
import { type Running, runOk, start } from './process.ts'

export interface TestPostgres {
  /** A new, empty database. @returns its URL. */
  fresh(): Promise<string>
  /** The server is there and does not answer. Absent where it is not ours to stop. */
  readonly pause?: () => void
  readonly resume?: () => void
  stop(): Promise<void>
}

export async function startPostgres(): Promise<TestPostgres> {
  const url = process.env.POSTGRES_URL
  if (url) return { fresh: () => freshIn(url), stop: async () => {} }
  const bin = binaries()
  if (bin === undefined)
    throw new Error('These tests need a real PostgreSQL: install postgresql (.ci/run does), or set POSTGRES_URL.')
  return startServer(bin)
}

/** Debian keeps them beside PATH, by version. */
function binaries(): string | undefined {
  const packaged = globSync('/usr/lib/postgresql/*/bin').sort((a, b) => b.localeCompare(a, 'en', { numeric: true }))
  const dirs = [...packaged, ...(process.env.PATH ?? '').split(delimiter)]
  return dirs.find((dir) => dir !== '' && existsSync(join(dir, 'initdb')) && existsSync(join(dir, 'postgres')))
}

/** Nothing is synced to disk, and nobody but this machine can connect. */
async function startServer(bin: string): Promise<TestPostgres> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-pg-'))
  const owner = await unprivileged()
  if (owner) chownSync(dir, owner.uid, owner.gid)
  const as = (command: string, ...args: string[]): [string, string[]] =>
    owner
      ? ['setpriv', [`--reuid=${owner.uid}`, `--regid=${owner.gid}`, '--clear-groups', command, ...args]]
      : [command, args]
  const options = ['--auth=trust', '--username=keyless', '--encoding=UTF8', '--no-locale', '--no-sync']
  await runOk(...as(join(bin, 'initdb'), '--pgdata', join(dir, 'data'), ...options), { cwd: dir })
  const port = await freePort()
  const settings = ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off', 'listen_addresses=127.0.0.1']
  const flags = settings.flatMap((setting) => ['-c', setting])
  const server: Running = start(
    ...as(join(bin, 'postgres'), '-D', join(dir, 'data'), '-p', String(port), '-k', dir, ...flags),
    { cwd: dir },
  )
  await server.says(/ready to accept connections/)
  const url = `postgres://keyless@127.0.0.1:${port}/postgres`
  return {
    fresh: () => freshIn(url),
    pause: () => server.kill('SIGSTOP'),
    resume: () => server.kill('SIGCONT'),
    async stop() {
      server.kill('SIGCONT')
      server.kill('SIGQUIT') // at once: SIGTERM waits for clients to leave
      await server.ended
      await rm(dir, { recursive: true, force: true })
    },
  }
}

/** PostgreSQL does not run as root. */
async function unprivileged(): Promise<{ uid: number; gid: number } | undefined> {
  if (process.getuid?.() !== 0) return undefined
  const users = (await readFile('/etc/passwd', 'utf8')).split('\n').map((line) => line.split(':'))
  const user = users.find(([name]) => name === 'postgres') ?? users.find(([name]) => name === 'nobody')
  return { uid: Number(user?.[2] ?? 65_534), gid: Number(user?.[3] ?? 65_534) }
}

async function freshIn(url: string): Promise<string> {
  const name = `test_${randomUUID().replaceAll('-', '')}`
  const client = new Client({ connectionString: url })
  await client.connect()
  await client.query(`CREATE DATABASE ${name}`)
  await client.end()
  const made = new URL(url)
  made.pathname = `/${name}`
  return made.href
}
