import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Echo, HANDLE, type OpenDoor, openDoor } from './door.fixture.ts'

const run = promisify(execFile)

let door: OpenDoor
beforeAll(async () => {
  door = await openDoor()
})
afterAll(() => door.close())

const proxy = (password = HANDLE): string => `http://task:${password}@127.0.0.1:${door.port}`

interface Said {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

const curl = (...args: string[]): Promise<Said> => curlWith('', ...args)

async function curlWith(input: string, ...args: string[]): Promise<Said> {
  const all = ['-sS', '--max-time', '15', '--noproxy', '', '--cacert', door.caFile, ...args]
  const running = run('curl', all)
  running.child.stdin?.on('error', () => {}) // it need not read all of it
  running.child.stdin?.end(input)
  return running.then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (cause) => ({ code: cause.code as number, stdout: cause.stdout, stderr: cause.stderr }),
  )
}

test('curl calls an https API through the proxy', async () => {
  const { stdout } = await curl('-x', proxy(), 'https://api.github.test/user?a=%2F')
  expect(JSON.parse(stdout) as Echo).toMatchObject({ method: 'GET', url: '/user?a=%2F' })
})

test('curl uploads 100 KB with Expect: 100-continue', async () => {
  const { stdout } = await curl(
    '-x',
    proxy(),
    '-H',
    'Expect: 100-continue',
    '--data-binary',
    'x'.repeat(100_000),
    'https://api.github.test/upload',
  )
  expect((JSON.parse(stdout) as Echo).bytes).toBe(100_000)
})

test.each(['--http2', '--http1.1'])('curl %s sees the same answer, and a refusal with its reason', async (version) => {
  const got = await curl(version, '-w', '\n%{http_version} %{http_code}', '-x', proxy(), 'https://api.github.test/user')
  const [body = '', facts] = got.stdout.split('\n')
  expect((JSON.parse(body) as Echo).url).toBe('/user')
  expect(facts).toBe(version === '--http2' ? '2 200' : '1.1 200')
  const large = ['--data-binary', '@-', '-w', '\n%{http_code}', '-x', proxy(), 'https://api.github.test/denied']
  const refused = await curlWith('x'.repeat(5_000_000), version, ...large)
  expect(refused.stdout).toMatch(/"message":"Policy does not allow this call: .*"[\s\S]*\n403$/)
})

test('curl that sends credentials only after a 407 gets through', async () => {
  const { stdout } = await curl('--proxy-anyauth', '-x', proxy(), 'https://api.github.test/user')
  expect((JSON.parse(stdout) as Echo).url).toBe('/user')
})

test('curl offers h2c on plain http and is served', async () => {
  const { stdout } = await curl('--http2', '-x', proxy(), 'http://shop.example/x')
  expect((JSON.parse(stdout) as Echo).url).toBe('/x')
})

test('curl shows the code of a refused CONNECT', async () => {
  const { code, stdout } = await curl('-i', '-x', proxy('kh_wrong'), 'https://api.github.test/user')
  expect(code).toBe(56)
  expect(stdout).toContain('keyless grant_invalid')
})

test('curl shows the body of a refusal inside the tunnel', async () => {
  const { stdout } = await curl('-w', '\n%{http_code}', '-x', proxy(), 'https://api.github.test/denied')
  expect(stdout).toMatch(/"message":"Policy does not allow this call: .*"[\s\S]*\n403$/)
})

test('curl without the CA fails, and the operator is told which client and host', async () => {
  const refused = await run('curl', ['-sS', '-x', proxy(), 'https://untrusted.test/']).catch((cause) => cause)
  expect(refused.code).toBe(60)
  const found = (): typeof door.complaints => door.complaints.filter(({ host }) => host === 'untrusted.test')
  while (found().length === 0) await new Promise(setImmediate)
  expect(found()[0]?.text).toMatch(/^The client "curl\/.*does not trust the gateway's certificate for untrusted\.test/)
})

test('curl takes an IPv6 literal and a port', async () => {
  const { stdout } = await curl('-x', proxy(), 'https://[2001:db8::1]:8443/x')
  expect((JSON.parse(stdout) as Echo).url).toBe('/x')
  expect(door.calls.at(-1)).toMatchObject({ host: '2001:db8::1', port: 8443 })
})

test('curl reaches a reverse route', async () => {
  const { stdout } = await curl('-H', `Authorization: Bearer ${HANDLE}`, `http://127.0.0.1:${door.port}/github/user`)
  expect((JSON.parse(stdout) as Echo).url).toBe('/user')
})

const PYTHON = `
import os, ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[1])
context.verify_flags |= ssl.VERIFY_X509_STRICT
opener = urllib.request.build_opener(urllib.request.ProxyHandler({'https': sys.argv[2]}), urllib.request.HTTPSHandler(context=context))
print(opener.open(sys.argv[3], timeout=15).read().decode())
`

test('python3 urllib verifies the certificate with VERIFY_X509_STRICT and is served', async () => {
  const { stdout } = await run('python3', ['-c', PYTHON, door.caFile, proxy(), 'https://api.github.test/user'])
  expect((JSON.parse(stdout) as Echo).url).toBe('/user')
})

test('python3 urllib takes an IP address too', async () => {
  const { stdout } = await run('python3', ['-c', PYTHON, door.caFile, proxy(), 'https://198.51.100.7/user'])
  expect((JSON.parse(stdout) as Echo).url).toBe('/user')
})

test('Node fetch is served through its environment proxy', async () => {
  const script = `const r = await fetch('https://api.github.test/user'); console.log(await r.text())`
  const { stdout } = await run(process.execPath, ['--input-type=module', '-e', script], {
    env: {
      ...process.env,
      NODE_USE_ENV_PROXY: '1',
      HTTPS_PROXY: proxy(),
      NODE_EXTRA_CA_CERTS: door.caFile,
      NO_PROXY: '',
    },
  })
  expect((JSON.parse(stdout) as Echo).url).toBe('/user')
})

test('git shows a refusal as remote text', async () => {
  const refused = await run('git', ['ls-remote', 'https://github.test/denied/repo.git'], {
    env: {
      ...process.env,
      HTTPS_PROXY: proxy(),
      https_proxy: proxy(),
      GIT_SSL_CAINFO: door.caFile,
      GIT_TERMINAL_PROMPT: '0',
      NO_PROXY: '',
      no_proxy: '',
    },
  }).catch((cause) => cause)
  expect(refused.stderr).toContain('remote: Policy does not allow this call')
})
