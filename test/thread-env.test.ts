/** What threads of the gateway find in their environment, and how they start. */
import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ROOT } from './rig/process.ts'

const THREAD = `
  const { parentPort } = require('node:worker_threads')
  parentPort.postMessage([process.env, require('node:module').getCompileCacheDir() ?? null])`
const START = `
  import { Worker } from 'node:worker_threads'
  import { threadEnv } from './gateway/thread-env.ts'
  delete process.env.NODE_COMPILE_CACHE // as keyless.ts does
  const worker = new Worker(${JSON.stringify(THREAD)}, { eval: true, env: threadEnv({ PGHOST: 'db' }), execArgv: [] })
  worker.on('message', (found) => console.log(JSON.stringify(found)))`

let place: string
beforeAll(async () => {
  place = await mkdtemp(join(tmpdir(), 'keyless-compiled-'))
})
afterAll(() => rm(place, { recursive: true, force: true }))

async function found(changes: NodeJS.ProcessEnv): Promise<[NodeJS.ProcessEnv, string | null]> {
  const { NODE_COMPILE_CACHE: _, ...env } = process.env
  const options = { cwd: ROOT, env: { ...env, SOME_SECRET: 'not for threads', ...changes } }
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', START], options)
  return JSON.parse(stdout)
}

it('is what the thread was given, and where compiled code is kept, so that it need not be compiled again', async () => {
  const [env, dir] = await found({ NODE_COMPILE_CACHE: place })
  expect(env).toEqual({ PGHOST: 'db', NODE_COMPILE_CACHE: place })
  expect(dir).toMatch(new RegExp(`^${place}/[^/]+$`))
})

it('is what the thread was given alone where the process keeps none', async () => {
  expect(await found({})).toEqual([{ PGHOST: 'db' }, null])
})
