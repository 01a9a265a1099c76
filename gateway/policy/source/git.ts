/**
 * Bundles in a git repository, through the `git` program: one shallow fetch of one ref into a bare repository of our own, read
 * object by object. Nothing is ever checked out, so no filter, hook, link or submodule of the repository does anything; of the
 * user's own configuration nothing is read.
 */
import { execFile } from 'node:child_process'
import { mkdir, rm } from 'node:fs/promises'
import { MANIFEST, MAX_MANIFEST_BYTES } from './signature.ts'
import { MAX_FILE_BYTES, type Source } from './source.ts'

export interface GitPlace {
  /** `https://…`, `ssh://…` or `file://…`. */
  readonly url: string
  /** `refs/heads/main`, `refs/tags/v1`. */
  readonly ref: string
  /** Directory of the manifest in the repository; empty: its root. */
  readonly path: string
  /** Of `ssh://`: private key and known hosts, absolute. */
  readonly ssh?: { readonly key: string; readonly knownHosts: string }
  /** Value of the field `Authorization`, read anew for each fetch. */
  authorization?(): Promise<string>
  /** Path of a PEM file with the roots that `https://` is checked against. Default: the system's. */
  readonly ca?: string
}

const TIMEOUT_MS = 60_000
/** Of any file that a fetch writes, in blocks of 512 bytes: 64 MiB. A repository of policies is far below that. */
const MAX_FILE_BLOCKS = 131_072
const REF = 'refs/keyless/offered'

/** @param dir of our own, absolute: emptied whenever it is not usable. */
export function gitSource(place: GitPlace, dir: string): Source {
  return {
    kind: 'git',
    place: `${place.url} ${place.ref}${place.path === '' ? '' : ` ${place.path}`}`,
    async open(known, signal) {
      const git = (args: readonly string[], most: number) => run(place, dir, { args, most, signal })
      const text = async (...args: string[]) => (await git(args, 4096)).toString('utf8').trim()
      await prepare(dir, text)
      const depth = ['--depth=1', '--no-tags', '--no-recurse-submodules', '--no-write-fetch-head', '--quiet', '--force']
      await text('fetch', ...depth, '--end-of-options', place.url, `${place.ref}:${REF}`)
      const commit = await text('rev-parse', '--verify', '--end-of-options', `${REF}^{commit}`)
      if (commit === known) return undefined
      const blob = (name: string, most: number) =>
        git(['cat-file', 'blob', `${commit}:${place.path === '' ? '' : `${place.path}/`}${name}`], most)
      return {
        manifest: await blob(MANIFEST, MAX_MANIFEST_BYTES),
        revision: commit,
        read: (name) => blob(name, MAX_FILE_BYTES),
        async [Symbol.asyncDispose]() {
          // What was superseded would pile up. Failing to clean is no reason to refuse a bundle.
          await text('gc', '--prune=now', '--quiet').catch(() => undefined)
        },
      }
    },
    async [Symbol.asyncDispose]() {},
  }
}

async function prepare(dir: string, git: (...args: string[]) => Promise<string>): Promise<void> {
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const isUsable = await git('rev-parse', '--is-bare-repository').catch(() => 'none')
  if (isUsable === 'true') return
  await rm(dir, { recursive: true, force: true })
  await mkdir(dir, { recursive: true, mode: 0o700 })
  await git('init', '--bare', '--quiet', '--template=')
}

interface Run {
  readonly args: readonly string[]
  /** Bytes of output. */
  readonly most: number
  readonly signal: AbortSignal
}

/** Nothing decides but these: no file of the system, the user or the repository. */
const CONFIG: Readonly<Record<string, string>> = {
  'core.hooksPath': '/dev/null',
  'core.fsmonitor': 'false',
  'core.askPass': 'true',
  'credential.helper': '',
  'fetch.fsckObjects': 'true',
  'fetch.recurseSubmodules': 'false',
  'gc.auto': '0',
  'http.followRedirects': 'false',
  'http.lowSpeedLimit': '1',
  'http.lowSpeedTime': '20',
  'maintenance.auto': 'false',
  'protocol.allow': 'never',
}

/** No others: `ext::` runs what stands in it. */
const SCHEMES = ['https', 'ssh', 'file'] as const

async function run(place: GitPlace, dir: string, { args, most, signal }: Run): Promise<Buffer> {
  const scheme = SCHEMES.find((name) => place.url.startsWith(`${name}://`))
  const config = { ...CONFIG, ...(scheme && { [`protocol.${scheme}.allow`]: 'always' }) }
  if (place.ca !== undefined) config['http.sslCAInfo'] = place.ca
  if (place.authorization !== undefined && args[0] === 'fetch')
    config[`http.${new URL(place.url).origin}/.extraHeader`] = `Authorization: ${await place.authorization()}`
  const env: Record<string, string> = {
    PATH: process.env.PATH ?? '/usr/bin:/bin',
    HOME: '/nonexistent',
    LC_ALL: 'C',
    GIT_DIR: dir,
    GIT_CONFIG_NOSYSTEM: '1',
    GIT_CONFIG_GLOBAL: '/dev/null',
    GIT_TERMINAL_PROMPT: '0',
    GIT_NO_REPLACE_OBJECTS: '1',
    GIT_PROTOCOL_FROM_USER: '0',
    GIT_SSH_COMMAND: sshCommand(place),
    GIT_CONFIG_COUNT: String(Object.keys(config).length),
  }
  // By the environment, not by arguments: those every process of the machine can read.
  for (const [n, [key, value]] of Object.entries(config).entries()) {
    env[`GIT_CONFIG_KEY_${n}`] = key
    env[`GIT_CONFIG_VALUE_${n}`] = value
  }
  const limited = ['-c', `ulimit -f ${MAX_FILE_BLOCKS}; exec git "$@"`, 'git', ...args]
  return new Promise((resolve, reject) => {
    execFile(
      '/bin/sh',
      limited,
      { env, cwd: dir, signal, timeout: TIMEOUT_MS, killSignal: 'SIGKILL', maxBuffer: most, encoding: 'buffer' },
      (failure, stdout, stderr) => (failure === null ? resolve(stdout) : reject(explained(args[0], failure, stderr))),
    )
  })
}

/** No agent, no configuration, no question asked; a host that is not known is refused. */
function sshCommand({ ssh }: GitPlace): string {
  if (ssh === undefined) return 'false'
  const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`
  const options = [
    'BatchMode=yes',
    'IdentitiesOnly=yes',
    'IdentityAgent=none',
    'StrictHostKeyChecking=yes',
    'ConnectTimeout=20',
  ]
  return `ssh -F /dev/null ${options.map((option) => `-o ${option}`).join(' ')} -o UserKnownHostsFile=${quoted(ssh.knownHosts)} -i ${quoted(ssh.key)}`
}

function explained(verb: string | undefined, failure: Error & { killed?: boolean }, stderr: Buffer): Error {
  const said = stderr
    .toString('utf8')
    .replaceAll(/\p{Cc}+/gu, ' ')
    .trim()
    .slice(0, 300)
  const why = failure.killed ? `it took longer than ${TIMEOUT_MS / 1000} s` : said || failure.message.slice(0, 200)
  return new Error(`git ${verb}: ${why}`, { cause: failure })
}
