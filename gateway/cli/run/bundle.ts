/**
 * The files that a run needs on disk, in a directory of its own: one PEM bundle that trusts what this machine trusts and the
 * gateway besides, and configuration for the clients that cannot be told by a variable. No secret but the run's own is in it.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { getCACertificates } from 'node:tls'
import type { RunFiles } from './environment.ts'

export interface Bundle {
  /** Mode 0700. */
  readonly dir: string
  readonly files: RunFiles
  /** PEM, one certificate each: what the run trusts. */
  readonly certificates: readonly string[]
  /** Safe to call twice. */
  remove(): Promise<void>
}

type Env = Readonly<Record<string, string | undefined>>

/** Where systems keep their roots as one file: Debian, Fedora and RHEL (two), SUSE, Alpine, BSD and macOS. */
export const SYSTEM_FILES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
]

/** Where a user, or a company's set-up, may have named a CA of their own. */
const USER_VARIABLES = [
  'NODE_EXTRA_CA_CERTS',
  'SSL_CERT_FILE',
  'REQUESTS_CA_BUNDLE',
  'CURL_CA_BUNDLE',
  'GIT_SSL_CAINFO',
  'AWS_CA_BUNDLE',
]

/** Make the files in a new directory, mode 0700. @param gatewayCa PEM of the interception CA. */
export async function writeBundle(gatewayCa: string, env: Env): Promise<Bundle> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-run-'))
  const files = { ca: join(dir, 'ca.pem'), wgetrc: join(dir, 'wgetrc'), phpDir: join(dir, 'php') }
  let certificates: readonly string[]
  try {
    certificates = await trusted(gatewayCa, env)
    await write(files.ca, `${certificates.join('\n')}\n`)
    await write(files.wgetrc, `${await wgetrcOf(env)}\nca_certificate = ${files.ca}\n`)
    await mkdir(files.phpDir, { mode: 0o700 })
    await write(join(files.phpDir, 'keyless.ini'), `curl.cainfo = "${files.ca}"\nopenssl.cafile = "${files.ca}"\n`)
  } catch (cause) {
    await rm(dir, { recursive: true, force: true })
    throw cause
  }
  return { dir, files, certificates, remove: () => rm(dir, { recursive: true, force: true }) }
}

function write(path: string, text: string): Promise<void> {
  return writeFile(path, text, { mode: 0o600 })
}

/** Every certificate once: what the system trusts, what the user added, the gateway. */
export async function combine(gatewayCa: string, env: Env): Promise<string> {
  return `${(await trusted(gatewayCa, env)).join('\n')}\n`
}

async function trusted(gatewayCa: string, env: Env): Promise<readonly string[]> {
  const named = USER_VARIABLES.flatMap((name) => env[name] ?? [])
  const users = await Promise.all(named.map(readIfThere))
  const certificates = [await systemRoots(), ...users, gatewayCa].flatMap((text) => text.match(PEM) ?? [])
  const unique = new Map(certificates.map((pem) => [pem.replace(/\s/g, ''), pem]))
  return [...unique.values()]
}

const PEM = /-----BEGIN (?:TRUSTED )?CERTIFICATE-----[^-]+-----END (?:TRUSTED )?CERTIFICATE-----/g

async function systemRoots(): Promise<string> {
  for (const path of SYSTEM_FILES) {
    const text = await readIfThere(path)
    if (text !== '') return text
  }
  const store = getCACertificates('system')
  return (store.length > 0 ? store : getCACertificates('bundled')).join('\n')
}

/** The user's, without passwords and without what leads past the proxy. wget reads names in any case, `-` and `_` alike or left out. */
async function wgetrcOf(env: Env): Promise<string> {
  const text = await readIfThere(env.WGETRC ?? join(homedir(), '.wgetrc'))
  const isKept = (line: string) => !LEFT_BEHIND.test((line.split('=', 1)[0] ?? '').replaceAll(/[\s_-]/g, ''))
  return text.split('\n').filter(isKept).join('\n')
}

const LEFT_BEHIND =
  /^(?:(?:http|ftp|proxy)?(?:passwd|password|user)|useproxy|(?:http|https|ftp|no)proxy|header|useaskpass|checkcertificate|ca(?:certificate|directory)|loadcookies)$/i

/** A CA file that a variable names and nobody can read would have failed the client anyway. */
async function readIfThere(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch {
    return ''
  }
}
