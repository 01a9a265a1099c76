/** The rig's own servers do what tests rely on. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { Client } from 'undici'
import { expect, it } from 'vitest'
import { startEcho } from './echo.ts'
import { startGit } from './git.ts'
import { run, runOk, start } from './process.ts'
import { startRedis } from './redis.ts'

it('the echo upstream shows the exact bytes it received, over TLS and in clear', async () => {
  const echo = await startEcho()
  const secure = new Client(`https://localhost:${echo.tlsPort}`, { connect: { ca: echo.caPem } })
  const clear = new Client(`http://localhost:${echo.cleartextPort}`)
  for (const client of [secure, clear]) {
    const answer = await client.request({
      method: 'POST',
      path: '/echo?a=%2F',
      headers: ['X-Odd', 'a  b'],
      body: 'hello',
    })
    expect(await answer.body.json()).toMatchObject({
      path: '/echo?a=%2F',
      body: 'hello',
      head: expect.stringContaining('\r\nX-Odd: a  b\r\n'),
    })
  }
  expect(echo.requests.map((request) => request.isTls)).toEqual([true, false])
  const get = async (path: string) => (await clear.request({ method: 'GET', path })).body.text()
  expect(await get('/split?size=7')).toContain('/split?size=7')
  expect((await get('/stream?bytes=200000')).length).toBe(200_000)
  const trailed = await clear.request({ method: 'GET', path: '/trailers?trailer=later' })
  expect([(await trailed.body.text()).length > 0, trailed.trailers]).toMatchObject([true, { 'x-note': 'later' }])
  await expect(get('/truncate')).rejects.toThrow()
  await expect(get('/reset')).rejects.toThrow()
  expect(await get('/close-delimited')).toContain('close-delimited')
  await Promise.all([secure.close(), clear.close()])
  await echo.stop()
  expect(echo.open).toBe(0)
})

it('the git server takes a push and gives a clone, for those who know the password', async () => {
  const git = await startGit({ password: 'generated-for-this-test' })
  const dir = await mkdtemp(join(tmpdir(), 'keyless-work-'))
  await writeFile(join(dir, 'ca.pem'), git.caPem)
  const env = {
    ...process.env,
    GIT_SSL_CAINFO: join(dir, 'ca.pem'),
    GIT_TERMINAL_PROMPT: '0',
    GIT_CONFIG_GLOBAL: '/dev/null',
  }
  const url = (password: string) => `https://${git.username}:${password}@localhost:${git.port}${git.path}`
  await runOk('git', ['init', '-q', '-b', 'main', join(dir, 'a')], { env })
  await writeFile(join(dir, 'a', 'file'), 'x'.repeat(100_000))
  await runOk('git', ['-C', join(dir, 'a'), 'add', 'file'], { env })
  const identity = ['-c', 'user.name=test', '-c', 'user.email=test@keyless.test']
  await runOk('git', ['-C', join(dir, 'a'), ...identity, 'commit', '-q', '-m', 'one'], { env })
  await runOk('git', ['-C', join(dir, 'a'), 'push', '-q', url(git.password), 'main'], { env })
  await runOk('git', ['clone', '-q', url(git.password), join(dir, 'b')], { env })
  expect((await run('git', ['clone', '-q', url('wrong'), join(dir, 'c')], { env })).code).not.toBe(0)
  await git.stop()
  await rm(dir, { recursive: true })
})

it('Redis is real', async () => {
  const server = await startRedis()
  const redis = new Redis(server.url)
  await redis.set(`${server.prefix}a`, '1', 'PX', 60_000)
  expect(await redis.get(`${server.prefix}a`)).toBe('1')
  redis.disconnect()
  await server.stop()
})

it('a child is read, waited for and ended', async () => {
  const child = start(process.execPath, ['-e', 'console.log("ready on 42"); setInterval(() => {}, 1000)'])
  expect((await child.says(/ready on (\d+)/))[1]).toBe('42')
  expect((await child.stop()).signal).toBe('SIGTERM')
  await expect(start(process.execPath, ['-e', '']).says(/never/)).rejects.toThrow('ended without saying')
  expect(await run('sh', ['-c', 'cat; exit 3'], { input: 'in' })).toMatchObject({ code: 3, stdout: 'in' })
})
