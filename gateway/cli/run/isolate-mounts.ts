/**
 * What an isolated command sees in place of the machine's own files: the run's CA where the system keeps its roots, its own name
 * server, and nothing where a unix socket would lead out of the network namespace, or the gateway keeps its keys.
 */
import { existsSync, readFileSync, realpathSync } from 'node:fs'
import { mkdir, readdir, readlink, symlink, writeFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { dirname, join, sep } from 'node:path'
import { SYSTEM_FILES } from './bundle.ts'
import { javaTrustStore } from './java-trust-store.ts'

/** `source` is seen at `target`; both exist. */
export interface Mount {
  readonly source: string
  readonly target: string
}

export interface MountOptions {
  /** Of this run; what is made for the mounts goes here. */
  readonly dir: string
  /** The PEM bundle of the run, and what is in it. */
  readonly trust: { readonly file: string; readonly certificates: readonly string[] }
  /** Of the gateway, with its keys. Need not be on this machine. */
  readonly dataDir: string
  /** Paths that the command cannot do without. */
  readonly needed: readonly string[]
}

const JAVA_STORES = ['/etc/ssl/certs/java/cacerts', '/etc/pki/java/cacerts', '/etc/pki/ca-trust/extracted/java/cacerts']
/** Debian's OpenSSL looks here for a file that Debian does not have, and then into a directory that is indexed by hash. */
const OPENSSL_DIR = '/usr/lib/ssl'
/** Sockets of daemons: D-Bus, systemd, Docker, name service caches. Each of these does, asked nicely, what the command cannot. */
const RUN_DIRS = ['/run', '/var/run']

/** @throws {Error} when what has to be hidden holds what the command needs. */
export async function prepareMounts({ dir, trust, dataDir, needed }: MountOptions): Promise<Mount[]> {
  const hidden = unique([...RUN_DIRS, dataDir].flatMap(real))
  for (const path of needed.flatMap(real)) {
    const over = hidden.find((place) => isWithin(path, place))
    if (over !== undefined)
      throw new Error(`${path} lies in ${over}, which an isolated command does not see: move it, or set TMPDIR`)
  }
  const files = [...(await trustMounts(dir, trust)), ...(await nameMounts(dir))]
  const places = await Promise.all(hidden.map((target, index) => standIn(join(dir, `hidden-${index}`), target)))
  for (const { source, target } of files.filter((file) => hidden.some((place) => isWithin(file.target, place)))) {
    const place = places.find((candidate) => isWithin(target, candidate.target))
    if (place === undefined) continue
    const copy = join(place.source, target.slice(place.target.length))
    await mkdir(dirname(copy), { recursive: true })
    await writeFile(copy, readFileSync(source))
  }
  const isSeen = ({ target }: Mount) => !hidden.some((place) => isWithin(target, place))
  return [
    ...files.filter(isSeen),
    ...socketMounts()
      .filter(isSeen)
      .filter(({ target }) => !real(dir).some((own) => isWithin(target, own))),
    ...places,
  ]
}

async function trustMounts(dir: string, { file, certificates }: MountOptions['trust']): Promise<Mount[]> {
  const mounts = unique(SYSTEM_FILES.flatMap(real)).map((target) => ({ source: file, target }))
  const stores = unique(JAVA_STORES.flatMap(real))
  if (stores.length > 0) {
    const source = join(dir, 'cacerts')
    await writeFile(source, javaTrustStore(certificates, Date.now()))
    mounts.push(...stores.map((target) => ({ source, target })))
  }
  if (existsSync(OPENSSL_DIR) && !existsSync(join(OPENSSL_DIR, 'cert.pem'))) {
    const source = join(dir, 'openssl')
    await mkdir(source)
    await copyLinks(OPENSSL_DIR, source)
    await symlink(file, join(source, 'cert.pem'))
    mounts.push({ source, target: OPENSSL_DIR })
  }
  return mounts
}

/** Where there is no resolv.conf, resolvers ask 127.0.0.1 anyway. Names of the machine's own hosts file are the gateway's to resolve. */
async function nameMounts(dir: string): Promise<Mount[]> {
  const texts = {
    '/etc/resolv.conf': 'nameserver 127.0.0.1\n',
    '/etc/hosts': `127.0.0.1 localhost ${hostname()}\n::1 localhost\n`,
  }
  const mounts: Mount[] = []
  for (const [path, text] of Object.entries(texts)) {
    const [target] = real(path)
    if (target === undefined) continue
    const source = join(dir, path.slice('/etc/'.length))
    await writeFile(source, text)
    mounts.push({ source, target })
  }
  return mounts
}

/** An empty directory, but for links that lead elsewhere (NixOS has its system there) and a place for this user's programs. */
async function standIn(source: string, target: string): Promise<Mount> {
  await mkdir(source, { recursive: true, mode: 0o700 })
  if (RUN_DIRS.includes(target)) {
    await copyLinks(target, source)
    await mkdir(join(source, 'user', String(process.getuid?.() ?? 0)), { recursive: true, mode: 0o700 })
  }
  return { source, target }
}

async function copyLinks(from: string, to: string): Promise<void> {
  const links = (await readdir(from, { withFileTypes: true })).filter((entry) => entry.isSymbolicLink())
  for (const { name } of links) await symlink(await readlink(join(from, name)), join(to, name))
}

/** Every socket that somebody has bound to a path by now: a path is not of the network namespace, and can be opened from any. */
function socketMounts(): Mount[] {
  const bound = readFileSync('/proc/net/unix', 'utf8')
    .split('\n')
    .flatMap((line) => /\s(\/.*)$/.exec(line)?.[1] ?? [])
  return unique(bound.flatMap(real)).map((target) => ({ source: '/dev/null', target }))
}

/** Nothing for what is not there, or not for this user. */
function real(path: string): string[] {
  try {
    return [realpathSync(path)]
  } catch {
    return []
  }
}

function isWithin(path: string, place: string): boolean {
  return path === place || path.startsWith(place + sep)
}

function unique(values: readonly string[]): string[] {
  return [...new Set(values)]
}
