/** An emergency to practise on: custodians with keys, a gateway on a disk of its own, and everything around it that can go down. */
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ISSUER_HOST } from '../../deploy/demo/upstream.ts'
import { entriesOf, writeSite } from '../invariant/services.fixture.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { ROOT, type Running, run, runOk, start } from '../rig/process.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

export const KEY = 'a-standing-key-for-emergencies'
export const AGENT = 'spiffe://acme.test/agents/repair'
const PASSPHRASE = 'correct horse battery staple'
const KEYLESS = join(ROOT, 'gateway', 'keyless.ts')

export interface Drill {
  readonly dir: string
  readonly echo: EchoUpstream
  readonly redis: TestRedis
  /** The OAuth server that issues credentials for `notes`. */
  readonly demo: TestUpstream
  /** `keyless …`; `input` is what is typed. */
  keyless(args: readonly string[], input?: string): ReturnType<typeof run>
  /** Write down what is needed. @returns its file. */
  request(): Promise<string>
  /** @returns the copy that this custodian has signed. */
  sign(file: string, custodian: (typeof CUSTODIANS)[number]): Promise<string>
  start(): Promise<DrillGateway>
  stop(): Promise<void>
}

export interface DrillGateway {
  /** Directory of its data, as seen from here. */
  readonly data: string
  readonly shell: Running
  readonly proxy: () => string
  /** One call by curl, an agent that knows nothing of any of this. @returns body, status, and that of the CONNECT. */
  curl(handle: string, url: string): Promise<string>
  fillDisk(): Promise<void>
  freeDisk(): Promise<void>
  /** SIGKILL; it is started again when `restart` is called. */
  kill(): Promise<void>
  restart(): Promise<void>
  entries(): ReturnType<typeof entriesOf>
}

/** Each keeps a key. */
const CUSTODIANS = ['ana', 'cy'] as const

export async function startDrill(): Promise<Drill> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-drill-'))
  const keyless = (args: readonly string[], input = '') => run(process.execPath, [KEYLESS, ...args], { input })
  const [echo, redis, demo, keys] = await Promise.all([
    startEcho({ names: ['repair.keyless.test', 'notes.keyless.test'] }),
    startRedis(),
    startUpstream(),
    Promise.all(
      CUSTODIANS.map(async (name) => {
        const out = await runOk(
          process.execPath,
          [KEYLESS, 'break-glass', 'keygen', name, '--out', join(dir, `${name}.key`)],
          { input: `${PASSPHRASE}\n` },
        )
        return { name, key: /key: (\S+) \}/.exec(out)?.[1] }
      }),
    ),
  ])
  const { facts } = demo
  await copyFile(facts.client_secret_file, join(dir, 'secret')) // both outlive the server
  await copyFile(facts.ca_file, join(dir, 'issuer.pem'))
  await writeFile(join(dir, 'echo.pem'), echo.caPem)
  const site = await writeSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [
        {
          name: 'repair',
          operations: {
            'things.read': { match: ['GET /echo'], access: 'read' },
            'things.stream': { match: ['GET /drip'], access: 'read' },
            'things.delete': { match: ['DELETE /echo'], access: 'write', irreversible: true },
          },
        },
        { name: 'notes', operations: { 'all.read': { match: ['GET /echo'], access: 'read' } } },
      ],
      credentials: {
        repair: KEY,
        notes: {
          provider: 'oauth_client_credentials',
          token_url: facts.token_url,
          client_id: facts.client_id,
          client_auth: 'client_secret_basic',
          client_secret: { file: join(dir, 'secret') },
          scope: facts.scope,
          addresses: ['127.0.0.1/32'],
        },
      },
      policies: {
        text: `
          @id("delete-in-emergencies") @owner("security") @approvers("2") @approval("on-call")
          permit (principal is Agent, action == Action::"repair:things.delete", resource) when { context.break_glass };`,
      },
      settings: {
        agents: [{ id: AGENT, owner: 'ops@acme.test', purpose: 'repair things' }],
        redis: { url: redis.url },
        upstream: { ca: [join(dir, 'issuer.pem'), join(dir, 'echo.pem')], hosts: { [ISSUER_HOST]: '127.0.0.1' } },
        break_glass: { custodians: keys, scope: 'repair:* notes:*', journal: join(dir, 'journal') },
      },
    },
  )
  await mkdir(join(dir, 'data'))
  await writeFile(
    join(dir, 'keyless.yaml'),
    `data_dir: ${dir}/data\nlisten: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }\n${site.yaml}`,
  )
  return {
    ...{ dir, echo, redis, demo, keyless },
    async request() {
      const file = join(dir, 'request.json')
      const asked = ['--who', 'dee@acme.test', '--why', 'the store is down, and things are broken', '--agent', AGENT]
      const args = ['break-glass', 'request', ...asked, '--scope', 'repair:* notes:*', '--out', file]
      await runOk(process.execPath, [KEYLESS, ...args])
      return file
    },
    async sign(file, custodian) {
      const copy = `${file}.${custodian}`
      await copyFile(file, copy)
      const args = ['break-glass', 'sign', copy, '--key', join(dir, `${custodian}.key`)]
      await runOk(process.execPath, [KEYLESS, ...args], { input: PASSPHRASE })
      return copy
    },
    start: () => startHere(dir),
    async stop() {
      await Promise.all([echo.stop(), redis.stop().catch(() => {}), demo.stop().catch(() => {})])
      await site.remove()
      await rm(dir, { recursive: true, force: true })
    },
  }
}

/** Its data directory is a file system of its own that can be filled; it outlives the gateway, as a disk does. */
async function startHere(dir: string): Promise<DrillGateway> {
  const again = join(dir, 'again')
  const script = `mount -t tmpfs -o size=6m tmpfs "$0" || exit 1
    while true; do "$@"; until [ -e ${again} ]; do sleep 0.05; done; rm ${again}; done`
  const gateway = [process.execPath, KEYLESS, 'start', '--config', join(dir, 'keyless.yaml')]
  const namespace = ['--user', '--map-root-user', '--mount', '--pid', '--fork', '--kill-child=SIGKILL']
  const shell = start('unshare', [...namespace, 'bash', '-c', script, join(dir, 'data'), ...gateway])
  const starts = async (n: number) => {
    await shell.says(new RegExp(`(?:Ctrl-C[^]*){${n}}`))
    return [...shell.stdout.matchAll(/proxy +(http:\/\/[\d.:]+)/g)].at(-1)?.[1] ?? ''
  }
  let count = 1
  let proxy = await starts(count)
  const childOf = async (pid: number) => (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ')
  const [bash = ''] = await childOf(shell.pid)
  const data = `/proc/${bash}/root${join(dir, 'data')}`
  const filler = join(data, 'filler')
  return {
    ...{ data, shell, proxy: () => proxy },
    async curl(handle, url) {
      const via = ['--cacert', join(data, 'keys', 'ca.pem'), '-x', proxy.replace('//', `//task:${handle}@`)]
      return (await run('curl', ['-sS', '-m', '20', ...via, '-w', ' %{http_code} %{http_connect}', url])).stdout
    },
    fillDisk: async () => void (await run('dd', ['if=/dev/zero', `of=${filler}`, 'bs=1k'])), // until nothing fits
    freeDisk: () => rm(filler),
    async kill() {
      const [node = ''] = await childOf(Number(bash))
      process.kill(Number(node), 'SIGKILL')
    },
    async restart() {
      count += 1
      await writeFile(again, '')
      proxy = await starts(count)
    },
    entries: () => entriesOf(data),
  }
}
