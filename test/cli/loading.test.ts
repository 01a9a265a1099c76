/** Every command starts with all of `keyless.ts`: what that loads, each `keyless run` waits for. */
import { execFile } from 'node:child_process'
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { ROOT } from '../rig/process.ts'

/** Prints what was loaded, one URL a line, after what the command printed itself. */
const TELL = `data:text/javascript,${encodeURIComponent(`
  import { registerHooks } from 'node:module'
  const seen = []
  registerHooks({ load: (url, context, next) => (seen.push(url), next(url, context)) })
  process.on('exit', () => console.log(seen.join('\\n')))
`)}`

it('no command loads a room, or a package but one, before it needs it', async () => {
  const args = ['--import', TELL, 'gateway/keyless.ts', '--version']
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: ROOT })
  const loaded = stdout.split('\n').filter((line) => line.startsWith('file:'))
  const packages = loaded.flatMap((url) => /\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1] ?? [])
  expect([...new Set(packages)]).toEqual(['commander'])
  const own = loaded.flatMap((url) => (url.includes('/node_modules/') ? [] : (/\/gateway\/(.+)/.exec(url)?.[1] ?? [])))
  expect(own).toContain('cli/grant/grant.ts')
  const light =
    /^(?:cli|protocol)\/|^(?:audit\/entries\/lineage|grant\/chain\/jws|settings\/data-directory|keyless|version)\.ts$/
  expect(own.filter((file) => !light.test(file))).toEqual([])
})

it.each([
  ['ours is for no command that is started here', 'node_modules/.cache/keyless-compiled', 'undefined'],
  ['the user’s own is', 'node_modules/.cache/of-the-user', 'node_modules/.cache/of-the-user'],
])('of the places for compiled code, %s', async (_, place, seen) => {
  const env = { ...process.env, NODE_COMPILE_CACHE: join(ROOT, place) }
  const tell = `data:text/javascript,process.on('exit', () => console.log('seen ' + process.env.NODE_COMPILE_CACHE))`
  const args = ['--import', tell, 'gateway/keyless.ts', '--version']
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: ROOT, env })
  expect(stdout).toContain(`seen ${seen === 'undefined' ? seen : join(ROOT, seen)}`)
  await rm(join(ROOT, 'node_modules/.cache/of-the-user'), { recursive: true, force: true })
})
