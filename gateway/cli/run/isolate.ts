/**
 * `keyless run --isolate`: the command in namespaces of its own, without root, in which every destination leads to the run's
 * forwarder and nothing else is there. This is the launcher's side; isolate-inside.ts is the other.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { StatusView } from '../../protocol/control-status.ts'
import { type Ending, forwardSignals } from './child.ts'
import { findTools, OUTER, ROUTES } from './isolate-check.ts'
import type { Inside, Passed } from './isolate-inside.ts'
import { prepareMounts } from './isolate-mounts.ts'
import type { Surroundings } from './surroundings.ts'

export interface Isolation {
  /** Where the forwarder is to listen, and where the command is to find it on its own 127.0.0.1. */
  readonly inside: { readonly socketPath: string; readonly port: number }
  run(command: readonly string[], around: Surroundings, say: (text: string) => void): Promise<Ending>
  /** Remove the files. Safe to call twice. */
  remove(): Promise<void>
}

/** As proxies are wont to have. Every port is free in there. */
const PROXY_PORT = 3128
const HTTP_PORTS = [80, 443]
const INSIDE = fileURLToPath(new URL('./isolate-inside.ts', import.meta.url))
/** sysexits(3): the system could not do it. */
const BROKEN: Ending = { code: 71, signal: 'SIGKILL' }

/** Everything before the last line has to succeed. This shell stays, as the init that waits for orphans: Node would not. */
const SET_UP = (mount: string, ip: string) =>
  `set -e; while [ "$1" != -- ]; do [ ! -e "$2" ] || "${mount}" --bind "$1" "$2"; shift 2; done; shift; { ${ROUTES(ip)}; } || exit 1; set +e; "$@"; exit $?`
/**
 * A terminal sends these to unshare as well, which would end; what Node starts hears them again. And it ends with the launcher, even
 * if the command has stopped the one that would notice.
 */
const STAY = (setpriv: string) => `trap "" QUIT HUP; exec "${setpriv}" --pdeathsig KILL -- "$@"`

export async function openIsolation(status: Pick<StatusView, 'data_dir' | 'services'>): Promise<Isolation> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-isolate-'))
  const socketPath = join(dir, 'forwarder.sock')
  return {
    inside: { socketPath, port: PROXY_PORT },
    async run(command, { env, trust }, say) {
      const { sh, unshare, setpriv, mount, ip } = findTools()
      const needed = [dir, trust.file, process.cwd(), process.execPath, INSIDE]
      const mounts = await prepareMounts({ dir, trust, dataDir: status.data_dir, needed }).catch((cause: Error) => {
        say(`the command cannot be isolated, and was not run: ${cause.message}`)
      })
      if (mounts === undefined) return { ...BROKEN, signal: null }
      const pairs = mounts.flatMap(({ source, target }) => [source, target])
      // A signal by which anybody may open Node's debugger would let the command become this process, which may unmount.
      const keeper = [process.execPath, '--disable-sigusr1', INSIDE]
      const setUp = [unshare, ...OUTER, '--', sh, '-c', SET_UP(mount, ip), 'sh', ...pairs, '--', ...keeper]
      const ports = [...new Set([...HTTP_PORTS, ...status.services.flatMap((service) => service.ports)])]
      const { getuid = () => 0, getgid = () => 0 } = process
      const inside: Inside = {
        ...{ socketPath, proxyPort: PROXY_PORT, ports, command, env, unshare },
        ...{ cwd: process.cwd(), uid: getuid(), gid: getgid() },
      }
      return superviseInside([sh, '-c', STAY(setpriv), 'sh', ...setUp], inside, say)
    },
    remove: () => rm(dir, { recursive: true, force: true }),
  }
}

/** What the child says of how the command ended is exact; if it can no longer say so, it has taken the command with it. */
async function superviseInside(
  [name = '', ...args]: readonly string[],
  inside: Inside,
  say: (text: string) => void,
): Promise<Ending> {
  const { promise, resolve } = Promise.withResolvers<Ending>()
  const release = forwardSignals((pass) => void (child.connected && child.send({ pass } satisfies Passed)))
  const child = spawn(name, args, {
    stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
    env: { PATH: process.env.PATH ?? '' },
  })
  let hasEnded = false
  const fail = () => {
    if (hasEnded) return
    say('the isolation of the command could not be set up, or was ended from outside')
    resolve(BROKEN)
  }
  child.once('message', (ending: Ending) => {
    hasEnded = true
    resolve(ending)
  })
  child.once('error', fail)
  child.once('disconnect', fail) // after all that it said, and when all are gone that could say more
  child.send(inside)
  try {
    const ending = await promise
    if (child.connected) await once(child, 'disconnect')
    return ending
  } finally {
    release()
  }
}
