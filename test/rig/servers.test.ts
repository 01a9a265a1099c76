/** The rig's own servers do what tests rely on. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SignatureV4 } from '@smithy/signature-v4'
import { Redis } from 'ioredis'
import { Client } from 'undici'
import { expect, it } from 'vitest'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { Sha256 } from './aws-verifier.ts'
import { startEcho } from './echo.ts'
import { startGit } from './git.ts'
import { run, runOk, start } from './process.ts'
import { startRedis } from './redis.ts'
import { startS3 } from './s3.ts'

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

it('S3 takes nothing whose signature, hash, length, trailer or checksum is not right', async () => {
  const tls = await throwAwayTls(['s3.test'])
  const keys = { accessKeyId: 'AKIATESTOFKEYLESSXYZ', secretAccessKey: 'generated-for-this-test' }
  const s3 = await startS3({ tls, keys, region: 'eu-west-1', bucket: 'b' })
  const client = new Client(`https://127.0.0.1:${s3.port}`, { connect: { ca: tls.caPem, servername: 's3.test' } })
  const put = async (
    body: string,
    headers: Record<string, string> = {},
    secret = keys.secretAccessKey,
    sent = body,
  ) => {
    const credentials = { ...keys, secretAccessKey: secret }
    const signer = new SignatureV4({
      credentials,
      region: 'eu-west-1',
      service: 's3',
      sha256: Sha256 as never,
      uriEscapePath: false,
    })
    const request = { method: 'PUT', protocol: 'https:', hostname: 's3.test', path: '/b/k' }
    const signed = await signer.sign({ ...request, query: {}, headers: { host: 's3.test', ...headers }, body })
    const answer = await client.request({ method: 'PUT', path: '/b/k', headers: signed.headers, body: sent })
    await answer.body.dump()
    return answer.statusCode
  }
  const framed = (length: number, trailer = 'x-amz-checksum-crc32') => ({
    'x-amz-content-sha256': 'STREAMING-UNSIGNED-PAYLOAD-TRAILER',
    'x-amz-decoded-content-length': String(length),
    'x-amz-trailer': trailer,
  })
  const body = '5\r\nhello\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n'
  expect([
    await put('hello'),
    await put('hello', { 'x-amz-checksum-crc32': 'NhCmhg==' }),
    await put(body, framed(5)),
  ]).toEqual([200, 200, 200])
  expect(s3.objects.get('k')?.bytes.toString()).toBe('hello')
  for (const refused of [
    put('hello', {}, 'another'),
    put('hello', {}, undefined, 'other'),
    put('hello', { 'x-amz-checksum-crc32': 'AAAAAA==' }),
    put('hello', { 'x-amz-checksum-unknown': 'AAAAAA==' }),
    put(body, framed(6)),
    put(body, framed(5, 'x-amz-checksum-sha1')),
    put(body.replace('NhCm', 'AAAA'), framed(5)),
    put(body.replace('hello', 'hella'), framed(5)),
  ])
    expect(await refused).toBe(403)
  expect(s3.refusals).toHaveLength(8)
  await client.close()
  await s3.stop()
})

it('a child is read, waited for and ended', async () => {
  const child = start(process.execPath, ['-e', 'console.log("ready on 42"); setInterval(() => {}, 1000)'])
  expect((await child.says(/ready on (\d+)/))[1]).toBe('42')
  expect((await child.stop()).signal).toBe('SIGTERM')
  await expect(start(process.execPath, ['-e', '']).says(/never/)).rejects.toThrow('ended without saying')
  expect(await run('sh', ['-c', 'cat; exit 3'], { input: 'in' })).toMatchObject({ code: 3, stdout: 'in' })
})
