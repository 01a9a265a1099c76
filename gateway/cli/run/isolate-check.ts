/**
 * Whether this machine lets a user without privileges make the namespaces of `keyless run --isolate`: asked by making them. What
 * it takes is util-linux (`unshare`, `setpriv`, `mount`) and iproute2 (`ip`); none of them has to be setuid.
 */
import { execFile } from 'node:child_process'
import { accessSync, constants, existsSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'

/** Absolute paths. */
export interface IsolationTools {
  readonly sh: string
  readonly unshare: string
  readonly setpriv: string
  readonly mount: string
  readonly ip: string
}

/** `ip` is where only root's PATH leads. */
const SYSTEM_PLACES = ['/usr/sbin', '/sbin', '/usr/bin', '/bin']
const PACKAGES = { sh: 'dash', unshare: 'util-linux', setpriv: 'util-linux', mount: 'mount', ip: 'iproute2' } as const

/**
 * First namespaces: their root is this user, and owns network, mounts and processes. `--fork`: the first process of a PID namespace
 * is its init, with which all others end.
 */
export const OUTER = [
  '--user',
  '--map-root-user',
  '--net',
  '--mount',
  '--pid',
  '--fork',
  '--kill-child',
  '--mount-proc',
]

/** Second user namespace, of the command alone: it owns none of the others, so that whatever the command becomes in it, it cannot change them. */
export function innerFlags(uid: number, gid: number): string[] {
  return ['--user', `--map-user=${uid}`, `--map-group=${gid}`]
}

/** Every address is on this machine then, so that whoever listens here has all of them. IPv6 may be absent: then nobody has it. */
export const ROUTES = (ip: string) =>
  `"${ip}" link set lo up && "${ip}" route add local 0.0.0.0/0 dev lo && { "${ip}" -6 route add local ::/0 dev lo 2>/dev/null || :; }`

/** @throws {Error} naming what is missing and the package that has it. */
export function findTools(): IsolationTools {
  const places = [...SYSTEM_PLACES, ...(process.env.PATH ?? '').split(delimiter)].filter((place) => place !== '')
  const find = (name: keyof typeof PACKAGES) => {
    const found = places.map((place) => join(place, name)).find(isExecutable)
    if (found === undefined) throw new Error(`it needs the program "${name}": install ${PACKAGES[name]}`)
    return found
  }
  return {
    ...{ sh: find('sh'), unshare: find('unshare'), setpriv: find('setpriv') },
    ...{ mount: find('mount'), ip: find('ip') },
  }
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** @returns why a command cannot be isolated here, with what to do; undefined when it can. */
export async function isolationProblem(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'it is made of namespaces, which only Linux has: use a container or a VM'
  try {
    const { sh, unshare, ip } = findTools()
    const { geteuid = () => 0, getegid = () => 0 } = process
    const inner = [unshare, ...innerFlags(geteuid(), getegid()), '--', sh, '-c', ':']
    await made(unshare, [...OUTER, '--', sh, '-c', `${ROUTES(ip)} && exec "$@"`, 'sh', ...inner])
    return undefined
  } catch (cause) {
    return cause instanceof Error ? cause.message : String(cause)
  }
}

function made(unshare: string, args: readonly string[]): Promise<void> {
  return new Promise((resolve, reject) => {
    execFile(unshare, args, { timeout: 10_000 }, (cause, _, said) => {
      if (cause === null) resolve()
      else reject(new Error(`${said.trim().split('\n')[0] || cause.message}. ${adviceFor(said)}`))
    })
  })
}

/** Each with the file that says so. */
const SWITCHES = [
  {
    file: '/proc/sys/user/max_user_namespaces',
    closed: '0',
    advice: 'This system allows no user namespaces: sysctl user.max_user_namespaces=15000',
  },
  {
    file: '/proc/sys/kernel/unprivileged_userns_clone',
    closed: '0',
    advice: 'This system keeps user namespaces for root: sysctl kernel.unprivileged_userns_clone=1',
  },
  {
    file: '/proc/sys/kernel/apparmor_restrict_unprivileged_userns',
    closed: '1',
    advice:
      'AppArmor keeps user namespaces from programs without a profile (Ubuntu 23.10 and later): give unshare one, as docs/run.md shows, or sysctl kernel.apparmor_restrict_unprivileged_userns=0',
  },
] as const

function adviceFor(said: string): string {
  if (/unrecognized option|invalid option/.test(said)) return 'It needs util-linux 2.36 or newer.'
  const closed = SWITCHES.find(({ file, closed }) => read(file) === closed)
  if (closed !== undefined) return closed.advice
  if (
    ['/.dockerenv', '/run/.containerenv'].some((file) => existsSync(file)) ||
    read('/proc/1/environ').includes('container=')
  )
    return 'This container may not make namespaces: isolate the container itself, as docker-compose.yml does, by a network whose only way out is the gateway'
  return 'Namespaces are forbidden here by seccomp, an LSM or a container: give the command a network whose only way out is the gateway instead'
}

function read(file: string): string {
  try {
    return readFileSync(file, 'latin1').trim()
  } catch {
    return ''
  }
}
