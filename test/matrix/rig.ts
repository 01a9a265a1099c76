/** What the matrix needs around it: the gateway before the upstream, one program per language, and a client's environment. */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { BEARER, type OpenSite, openSite, type Wanted } from '../invariant/services.fixture.ts'
import { goProgram, onPath, pythonWith, rustProgram } from '../rig/cache.ts'
import { newCanary } from '../rig/canary.ts'
import { ROOT, run, runOk } from '../rig/process.ts'
import type { MatrixClient, Toolchain } from './clients.ts'
import { type MatrixUpstream, type Packages, startMatrixUpstream, WHEEL } from './upstream.ts'

export interface Matrix {
  readonly upstream: MatrixUpstream
  readonly site: OpenSite
  readonly task: OpenedTask
  /** The real credential, which no client may ever see. */
  readonly canary: string
  readonly caFile: string
  /** @param way tells one run of a client from another, so that the upstream can, too. */
  baseOf(client: MatrixClient, way: string): string
  stop(): Promise<void>
}

const SERVICES = ['api', 'openai', 'anthropic', 'aws', 'npm', 'pypi'] as const
const X_API_KEY = { in: 'header', name: 'x-api-key' } as const

export async function openMatrix(): Promise<Matrix> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-matrix-'))
  const names = SERVICES.map((name) => `${name}.keyless.test`)
  const upstream = await startMatrixUpstream(names, await makePackages(dir))
  const canary = newCanary().replaceAll(/[^\w+=]/g, '')
  const site = await openSite(
    { port: upstream.port, caPem: upstream.tls.caPem },
    {
      services: SERVICES.map((name) => ({ name, ...described[name] })),
      credentials: Object.fromEntries(SERVICES.map((name) => [name, canary])),
    },
  )
  const task = await site.gateway.openTask(SERVICES.map((name) => `${name}:*`).join(' '), 'be every client there is')
  const caFile = join(dir, 'ca.pem')
  await writeFile(caFile, (await site.gateway.control.status()).ca_pem)
  await writeFile(join(dir, 'wgetrc'), `ca_certificate = ${caFile}\n`)
  return {
    upstream,
    site,
    task,
    canary,
    caFile,
    baseOf: ({ id, service = 'api' }, way) => `https://${service}.keyless.test:${upstream.port}/${id}-${way}`,
    async stop() {
      await site.stop()
      await upstream.stop()
      await rm(dir, { recursive: true, force: true })
    },
  }
}

const read = (...match: string[]) => ({ match, access: 'read' as const })
const write = (...match: string[]) => ({ match, access: 'write' as const })
const refused = (...match: string[]) => ({ match, access: 'write' as const, irreversible: true })

const described = {
  api: {
    operations: {
      read: read('GET /{client}/get', 'GET /{client}/download', 'GET /{client}/sse', 'GET /{client}/seen'),
      write: write('POST /{client}/post', 'POST /{client}/upload'),
      socket: { ...read('GET /{client}/ws'), websocket: true },
      refused: { ...refused('DELETE /{client}/refused', 'GET /{client}/refused'), websocket: true },
    },
  },
  openai: {
    dialect: 'openai',
    operations: {
      seen: read('GET /{client}/seen'),
      chat: write('POST /{client}/v1/chat/completions'),
      refused: refused('DELETE /{client}/v1/models/{id}', 'POST /{client}/refused/v1/chat/completions'),
    },
  },
  anthropic: {
    dialect: 'anthropic',
    slots: [X_API_KEY, BEARER],
    operations: {
      seen: read('GET /{client}/seen'),
      chat: write('POST /{client}/v1/messages'),
      refused: refused('DELETE /{client}/v1/messages/batches/{id}'),
    },
  },
  aws: {
    operations: {
      objects: read('GET /{client}/bucket/{key}'),
      put: write('PUT /{client}/bucket/{key}'),
      refused: refused('DELETE /{client}/bucket/{key}', 'POST /{client}'),
    },
  },
  npm: {
    dialect: 'npm',
    operations: {
      install: read('GET /{client}/matrix-package', 'GET /{client}/matrix-package/-/{file}'),
      refused: refused('GET /{client}/refused-package'),
    },
  },
  pypi: {
    operations: {
      install: read('GET /{client}/simple/matrix-package', 'GET /{client}/{wheel}'),
      refused: refused('GET /{client}/simple/refused-package'),
    },
  },
} as const satisfies Record<(typeof SERVICES)[number], Omit<Wanted['services'][number], 'name'>>

/** A package for npm and one for pip, each with `found.json` in it. */
async function makePackages(dir: string): Promise<Packages> {
  const found = JSON.stringify({ found: true })
  const pack = join(dir, 'package')
  await mkdir(pack)
  await writeFile(join(pack, 'package.json'), JSON.stringify({ name: 'matrix-package', version: '1.0.0' }))
  await writeFile(join(pack, 'found.json'), found)
  await runOk('tar', ['-czf', join(dir, 'npm.tgz'), '-C', dir, 'package'])
  await runOk('python3', ['-c', MAKE_WHEEL, join(dir, WHEEL), found])
  return { npm: await readFile(join(dir, 'npm.tgz')), wheel: await readFile(join(dir, WHEEL)) }
}

const MAKE_WHEEL = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], 'w') as wheel:
    wheel.writestr('found.json', sys.argv[2])
    info = 'matrix_package-1.0.0.dist-info/'
    wheel.writestr(info + 'METADATA', 'Metadata-Version: 2.1\\nName: matrix-package\\nVersion: 1.0.0\\n')
    wheel.writestr(info + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: keyless\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')
    wheel.writestr(info + 'RECORD', '')
`

const program = (name: string) => join(ROOT, 'test', 'matrix', 'programs', name)

/** Command before the base URL and the cases, or why there is none on this machine. */
export async function commandOf(client: MatrixClient): Promise<readonly string[] | Missing> {
  const name = client.program ?? client.id
  switch (client.needs) {
    case 'node':
      return [process.execPath, program('client.mjs'), name]
    case 'node-20':
      return (await oldNode(client)) ?? [OLD_NODE, program('client.mjs'), name]
    case 'python':
      return missing('python3', client) ?? [await pythonWith(REQUIREMENTS), program('client.py'), name]
    case 'go':
      return missing('go', client) ?? [await goProgram(program('client.go'))]
    case 'cargo':
      return missing('cargo', client) ?? (await cratesMissing()) ?? [await rustProgram(program('reqwest'))]
    case 'java':
      return missing('javac', client) ?? ['java', program('Client.java')]
    case 'pip':
      return missing('python3', client) ?? ['sh', program('client.sh'), name]
    default:
      return missing(client.needs, client) ?? ['sh', program('client.sh'), name]
  }
}

/** Where Debian and the makers of Node put it; ours comes first on PATH. */
const OLD_NODE = '/usr/bin/node'

async function oldNode(client: MatrixClient): Promise<Missing | undefined> {
  const { stdout = '' } = await run(OLD_NODE, ['--version']).catch(() => ({ stdout: '' }))
  return /^v20\./.test(stdout) ? undefined : new Missing(`${client.title}: ${OLD_NODE} is no Node 20`)
}

/** A cargo that reaches no registry is no toolchain; one that cannot compile the program is a failure. */
async function cratesMissing(): Promise<Missing | undefined> {
  const { code } = await run('cargo', ['fetch', '--quiet', '--locked'], { cwd: program('reqwest'), timeoutMs: 120_000 })
  return code === 0 ? undefined : new Missing('this machine gets no crates')
}

const REQUIREMENTS = join(ROOT, 'test', 'matrix', 'requirements.txt')

export class Missing {
  readonly what: string

  constructor(what: string) {
    this.what = what
  }
}

/** What .ci/run installs, so that it is there in CI. */
const PROMISED: readonly Toolchain[] = ['curl', 'wget', 'npm', 'pip', 'python', 'node', 'go', 'java']

function missing(command: string, { needs }: MatrixClient): Missing | undefined {
  if (onPath(command)) return undefined
  if (process.env.CI && PROMISED.includes(needs)) throw new Error(`CI needs ${command}; .ci/run installs it.`)
  return new Missing(`this machine has no ${command}`)
}

/** Exactly the variables that the row names, beside what every process has. */
export function environmentOf(client: MatrixClient, proxyUrl: string, caFile: string): NodeJS.ProcessEnv {
  const { PATH, HOME, LANG } = process.env
  const proxies = client.proxy.map((name) => [name, proxyUrl])
  const trusts = client.ca.map((name) => [name, name === 'WGETRC' ? join(caFile, '..', 'wgetrc') : caFile])
  return { PATH, HOME, LANG, ...client.also, ...Object.fromEntries([...proxies, ...trusts]) }
}
