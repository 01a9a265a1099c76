/** `keyless run --isolate`, for real: what the command can reach, what it cannot, and that it is otherwise as ever. */
import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { isolationProblem } from '../../gateway/cli/run/isolate-check.ts'
import { onPath } from '../rig/cache.ts'
import { ROOT, type RunOptions, run as runProcess, start as startProcess } from '../rig/process.ts'
import { type FixtureGateway, GRANT, startFixtureGateway } from './gateway.fixture.ts'

const entry = fileURLToPath(new URL('./run-command.fixture.ts', import.meta.url))
const program = (name: string) => fileURLToPath(new URL(`./programs/${name}`, import.meta.url))
const problem = await isolationProblem()
const isRoot = process.getuid?.() === 0
const NOBODY = 65_534
/** An older Node, as this machine has it beside ours. */
const oldNode = (process.env.PATH ?? '')
  .split(delimiter)
  .concat('/usr/bin', '/usr/local/bin')
  .map((place) => join(place, 'node'))
  .filter((file) => existsSync(file) && !file.startsWith(ROOT))
  .find((file) => Number.parseInt(execFileSync(file, ['--version'], { encoding: 'utf8' }).slice(1), 10) < 22)

let gateway: FixtureGateway
let dir: string

beforeAll(async () => {
  gateway = await startFixtureGateway()
  dir = await mkdtemp(join(tmpdir(), 'kl-isolate-'))
  await chmod(dir, 0o777)
})
afterAll(async () => {
  await gateway.close()
  await rm(dir, { recursive: true, force: true })
})
beforeEach(() => {
  gateway.seen.length = 0
  gateway.instructions.length = 0
})

const launch = (command: readonly string[]) => [
  process.execPath,
  ...[entry, 'run', '--task', 'x', '--data', gateway.dataDir, '--isolate', '--no-java', '--', ...command],
]
/** As root says so on stderr, each time. */
const warned = isRoot ? /^keyless: .* root.*\n/ : /^/
async function run(command: readonly string[], options: RunOptions = {}) {
  const [file = '', ...args] = launch(command)
  const { code, stdout, stderr } = await runProcess(file, args, { cwd: dir, ...options })
  expect(stderr).toMatch(warned)
  return { code, stdout, stderr: stderr.replace(warned, '') }
}
const start = (command: readonly string[], options: RunOptions = {}) => {
  const [file = '', ...args] = launch(command)
  return startProcess(file, args, { cwd: dir, ...options })
}
const shell = (script: string, options?: RunOptions) => run(['sh', '-c', script], options)
const python = (script: string) => `env -i PATH=/usr/bin:/bin python3 -c '${script}'`
const tunnels = () =>
  gateway.seen.filter(({ via }) => via === 'connect').map(({ url, proxyAuthorization }) => [url, proxyAuthorization])
const reasons = () =>
  gateway.instructions.filter(({ path }) => path.endsWith('/complete')).map(({ body }) => body.reason)

/** What a command may try to get out; one that succeeds is printed. The last one asks for a debugger that a signal may have opened. */
const ATTEMPTS = [
  'ip route del local 0.0.0.0/0 dev lo',
  'ip link set lo down',
  'nsenter -t 1 -n true',
  'nsenter -t $PPID -n true',
  'umount /etc/resolv.conf',
  'unshare -Urm umount /etc/resolv.conf',
  'unshare -Urm sh -c "mount --bind / /mnt"',
  'unshare -Urm umount /run',
  'cat /proc/$PPID/environ',
  'head -c1 /proc/$PPID/mem',
  'ls /proc/$PPID/root/',
  `kill -0 ${process.pid}`,
  'kill -KILL 1 && ! kill -0 1',
  'curl -sS -m 2 http://127.0.0.1:9229/json',
]
  .map((attempt) => `{ ${attempt}; } >/dev/null 2>&1 && echo '${attempt}'`)
  .reduce((script, line) => `${script}\n${line}`, 'PATH=$PATH:/usr/sbin:/sbin; kill -USR1 $PPID')

describe.runIf(process.env.CI !== undefined || problem === undefined)(
  `an isolated command${problem === undefined ? '' : ` (not possible here: ${problem})`}`,
  () => {
    it('reaches APIs with clients that know of no proxy and no CA', async () => {
      const { code, stdout, stderr } = await shell(`
        env -i curl -sS https://api.demo.test/curl http://api.demo.test/plain
        ${python('import urllib.request as u; print(u.urlopen("https://api.demo.test/urllib").read())')}
        curl -sS https://api.demo.test/by-proxy http://api.demo.test/by-proxy-plain`)
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(stdout.match(/"method":"GET"/g)).toHaveLength(5)
      expect(tunnels()).toEqual(
        ['443', '80', '443', '443'].map((port) => [`api.demo.test:${port}`, GRANT]), // urllib after curl, then the proxied one
      )
      expect(gateway.seen.filter(({ via }) => via === 'tunnel').map(({ url }) => url)).toEqual([
        ...['/curl', '/plain', '/urllib', '/by-proxy'],
      ])
      expect(gateway.seen.find(({ via }) => via === 'absolute')).toMatchObject({
        url: 'http://api.demo.test/by-proxy-plain',
        proxyAuthorization: GRANT,
      })
    })

    it('reaches them with any Node that was given nothing but the CA', async () => {
      const fetching = 'fetch("https://api.demo.test/fetch").then((r) => r.text()).then(console.log)'
      const nodes = [process.execPath, ...(oldNode === undefined ? [] : [oldNode])]
      const bare = (node: string) => `env -i NODE_EXTRA_CA_CERTS="$NODE_EXTRA_CA_CERTS" ${node} -e '${fetching}'`
      const { stdout, stderr } = await shell(nodes.map(bare).join('\n'))
      expect({ stderr, times: stdout.match(/"url":"\/fetch"/g)?.length }).toEqual({ stderr: '', times: nodes.length })
    })

    it.runIf(onPath('java'))(
      'reaches them with Java, told nothing',
      async () => {
        const { stdout } = await run(['java', program('Clients.java'), 'https://api.demo.test'], { timeoutMs: 60_000 })
        expect(stdout.match(/"method":"GET"/g)).toHaveLength(2)
      },
      60_000,
    )

    it('leads addresses without a name, and the ports of services, to the gateway, which decides of them', async () => {
      const { status } = gateway
      const services = status.services.map((service) => ({ ...service, ports: [8443] }))
      gateway.status = { ...status, services }
      const { stdout, stderr } = await shell(`
        env -i curl -sSk https://1.2.3.4/v4
        env -i curl -gsSk https://[2001:db8::1]/v6
        env -i curl -sSk --resolve api.other.test:443:5.6.7.8 https://api.other.test/own
        env -i curl -sS https://api.demo.test:8443/
        env -i curl -sS https://api.demo.test:9443/`)
      gateway.status = status
      expect(stdout.match(/"method":"GET"/g)).toHaveLength(4)
      expect(stderr).toMatch(/^curl: .* port 9443/)
      expect(tunnels()).toEqual(
        ['1.2.3.4:443', '[2001:db8::1]:443', '5.6.7.8:443', 'api.demo.test:8443'].map((url) => [url, GRANT]),
      )
    })

    it('reaches nothing else: no other port, no UDP, nothing of this machine, by no way', async () => {
      const socket = join(dir, 'daemon.sock')
      const daemon = await new Promise<Server>((resolve) => {
        const server = createServer((peer) => peer.end('reached')).listen(socket, () => resolve(server))
      })
      await chmod(socket, 0o777)
      await writeFile(
        join(dir, 'reach.py'),
        `import socket as s, sys
def attempt(name, family, kind, address):
    peer = s.socket(family, kind)
    peer.settimeout(5)
    try:
        peer.connect(address)
        if kind == s.SOCK_DGRAM: peer.send(b"x" * 20)
        print(name, "said", peer.recv(100))
    except Exception as e:
        print(name, type(e).__name__)
attempt("ssh", s.AF_INET, s.SOCK_STREAM, ("1.2.3.4", 22))
attempt("dns over tcp", s.AF_INET, s.SOCK_STREAM, ("8.8.8.8", 53))
attempt("udp", s.AF_INET, s.SOCK_DGRAM, ("8.8.8.8", 53))
attempt("quic", s.AF_INET, s.SOCK_DGRAM, ("8.8.8.8", 443))
attempt("gateway", s.AF_INET, s.SOCK_STREAM, ("127.0.0.1", ${gateway.port}))
attempt("loopback", s.AF_INET, s.SOCK_STREAM, ("127.0.0.1", 443))
attempt("daemon", s.AF_UNIX, s.SOCK_STREAM, ${JSON.stringify(socket)})
attempt("control", s.AF_UNIX, s.SOCK_STREAM, ${JSON.stringify(join(gateway.dataDir, 'control.sock'))})
`,
      )
      const { stdout } = await shell(`python3 reach.py; ls -A ${gateway.dataDir} /run/user/*; cat /etc/resolv.conf`)
      daemon.close()
      expect(stdout.split('\n').slice(0, 8)).toEqual([
        ...['ssh', 'dns over tcp', 'udp', 'quic', 'gateway'].map((name) => `${name} ConnectionRefusedError`),
        'loopback ConnectionResetError',
        'daemon ConnectionRefusedError',
        'control FileNotFoundError',
      ])
      expect(stdout).toContain('nameserver 127.0.0.1\n')
      expect(tunnels()).toEqual([])
    })

    it('cannot change its network, leave it, or take over what stands around it', async () => {
      const { code, stdout } = await shell(`${ATTEMPTS}\nenv -i curl -sS https://api.demo.test/still`)
      expect(stdout).toMatch(/^\{"method":"GET","url":"\/still"/)
      expect(code).toBe(0)
    })

    it('is who it was, where it was, with its input, its files and its own loopback', async () => {
      const serving = `require("http").createServer((q, a) => a.end("own")).listen(8080, async () => {
        for (const host of ["127.0.0.1", "localhost"]) console.log(await (await fetch("http://" + host + ":8080")).text()); process.exit() })`
      const script = `id -u; id -g; pwd; cat; echo made > made; echo "$GIVEN"; '${process.execPath}' -e '${serving}'`
      const { stdout } = await shell(script, { input: 'typed\n', env: { ...process.env, GIVEN: 'a b' } })
      expect(stdout).toBe(`${process.getuid?.()}\n${process.getgid?.()}\n${dir}\ntyped\na b\nown\nown\n`)
      expect((await stat(join(dir, 'made'))).uid).toBe(process.getuid?.())
    })

    it('ends as it ended', async () => {
      await writeFile(join(dir, 'plain.txt'), '')
      const [exited, killed, absent, data] = await Promise.all([
        shell('exit 7'),
        shell('kill -TERM $$'),
        run(['no-such-command'], { env: { ...process.env, PATH: '/usr/bin:/bin' } }),
        run(['./plain.txt']),
      ])
      expect(exited).toMatchObject({ code: 7, stderr: '' })
      expect(killed).toMatchObject({ code: 143, stderr: '' })
      expect(absent).toMatchObject({ code: 127, stderr: 'keyless: no-such-command: command not found\n' })
      expect(data).toMatchObject({ code: 126, stderr: 'keyless: ./plain.txt: cannot be run (EACCES)\n' })
      expect(reasons().sort()).toEqual(['completed', 'completed', 'completed', 'crashed'])
    })

    it.each(['SIGTERM', 'SIGINT', 'SIGUSR1'] as const)('is passed %s, once', async (signal) => {
      const listening = `let n = 0; process.on('${signal}', () => { if (n++ === 0) setTimeout(() => { console.log('got', n); process.exit(9) }, 50) }); console.log('ready'); setInterval(() => {}, 1000)`
      const started = start([process.execPath, '-e', listening])
      await started.says(/ready/)
      started.kill(signal)
      expect(await started.ended).toMatchObject({ code: 9, stdout: 'ready\ngot 1\n' })
    })

    it('has the terminal: keys reach it once each, and end nothing but what they are for', async () => {
      const listening = `const ready = () => console.log('ready')
        for (const name of ['SIGINT', 'SIGQUIT']) process.on(name, () => { console.log('got', name); ready() })
        process.stdin.on('data', (line) => { console.log('line', line.toString().trim()); process.exit(process.stdin.isTTY ? 3 : 4) })
        ready()`
      const keys = ['03', '1c', Buffer.from('typed\n').toString('hex')].join(',')
      const args = [program('terminal.py'), keys, ...launch([process.execPath, '-e', listening])]
      const { code, stdout } = await runProcess('python3', args, { cwd: dir })
      expect(stdout.match(/got \w+|line .*/g)).toEqual(['got SIGINT', 'got SIGQUIT', 'line typed'])
      expect(code).toBe(3)
    })

    it('takes what it left running with it, and ends when the launcher is killed', async () => {
      const marks = ['left', 'killed'].map((name) => `3${name.length}${process.pid}.5`)
      const alive = (mark: string) =>
        readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && commandLine(pid).includes(`sleep\0${mark}`))
      const { code } = await shell(`sleep ${marks[0]} & (setsid sleep ${marks[0]} &) ; echo`)
      expect({ code, left: alive(marks[0] ?? '') }).toEqual({ code: 0, left: [] })
      const started = start(['sh', '-c', `setsid sleep ${marks[1]} & echo ready; kill -STOP $PPID; wait`])
      await started.says(/ready/)
      await expect.poll(() => alive(marks[1] ?? '')).not.toEqual([])
      started.kill('SIGKILL')
      await expect.poll(() => alive(marks[1] ?? ''), { timeout: 10_000 }).toEqual([])
    })

    it('is told that it was refused by its client failing, and its user why', async () => {
      const detail = 'Policy says no to this host.'
      gateway.refusal = { status: 403, reason: 'x', body: JSON.stringify({ code: 'policy_denied', detail }) }
      const { code, stderr } = await shell('env -i curl -s https://api.demo.test/')
      gateway.refusal = undefined
      expect(code).toBe(35) // a reset, in the handshake
      expect(stderr).toBe(`keyless: api.demo.test:443 was refused: ${detail} (policy_denied)\n`)
    })

    it('knows nothing of another that runs at the same time', async () => {
      const names = ['one', 'two']
      const each = (name: string) =>
        shell(
          `env -i curl -sS https://api.demo.test/${name}; cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c '[i]nside.ts'`,
        )
      const both = await Promise.all(names.map(each))
      for (const [index, { code, stdout }] of both.entries()) {
        expect(code).toBe(0)
        expect(stdout).toMatch(new RegExp(`"url":"/${names[index]}".*\\}2\n$`)) // its own init, and who serves it
      }
    })

    it.runIf(isRoot)('needs no root', async () => {
      const own = await startFixtureGateway()
      execFileSync('chown', ['-R', `${NOBODY}:${NOBODY}`, own.dataDir])
      const script = `id -u; ${ATTEMPTS}\nenv -i curl -sS https://api.demo.test/`
      const [file = '', ...args] = launch(['sh', '-c', script])
      const command = [file, ...args.map((arg) => (arg === gateway.dataDir ? own.dataDir : arg))]
      const asNobody = ['--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups', ...command]
      const { code, stdout, stderr } = await runProcess('setpriv', asNobody, {
        cwd: dir,
        env: { ...process.env, HOME: dir },
      })
      await own.close()
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(stdout).toMatch(new RegExp(`^${NOBODY}\n\\{"method":"GET"`))
    })

    it('is not run where what has to be hidden holds what it needs', async () => {
      const { code, stderr } = await run(['touch', 'was-run'], { cwd: gateway.dataDir })
      expect(code).toBe(71)
      expect(stderr).toMatch(
        /^keyless: the command cannot be isolated, and was not run: .* does not see: move it, or set TMPDIR\n$/,
      )
      expect(existsSync(join(gateway.dataDir, 'was-run'))).toBe(false)
    })

    it('is not run at all where it cannot be isolated', async () => {
      const [file = '', ...args] = launch(['touch', 'was-run'])
      const none = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
      const { code, stderr } = await runProcess('unshare', ['-Ur', 'sh', '-c', none, 'sh', file, ...args], { cwd: dir })
      expect(code).toBe(71)
      expect(stderr).toMatch(/^keyless: --isolate is not possible here, so nothing was run: .*max_user_namespaces=/)
      expect(existsSync(join(dir, 'was-run'))).toBe(false)
      expect(gateway.instructions.filter(({ path }) => path === 'POST /tasks')).toEqual([])
    })

    it('leaves no file behind, and the machine as it was', async () => {
      const made = () => readdirSync(tmpdir()).filter((name) => name.startsWith('keyless-isolate-'))
      const before = { made: made(), mounts: await readFile('/proc/self/mounts', 'utf8') }
      await shell('echo x >/dev/null')
      const after = made().filter((name) => !before.made.includes(name))
      expect({ after, mounts: await readFile('/proc/self/mounts', 'utf8') }).toEqual({
        after: [],
        mounts: before.mounts,
      })
    })
  },
)

function commandLine(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1')
  } catch {
    return '' // it has ended since
  }
}
