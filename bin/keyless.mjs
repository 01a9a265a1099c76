#!/usr/bin/env node
/**
 * What `npm start`, `npm test` and `npx keyless` run first, under whatever Node the machine has (20 or newer): installs the
 * locked dependencies if they are not there, then hands over to the runtime that runs TypeScript as it is. Knows nothing of
 * the gateway.
 *
 *   bin/keyless.mjs COMMAND …              gateway/keyless.ts COMMAND …
 *   bin/keyless.mjs --runtime FILE …       any file under the same runtime
 *   bin/keyless.mjs --runtime vitest …     the test runner
 */
import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { constants } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

/** First Node that runs our TypeScript unbuilt and carries `node:sqlite` without a flag. */
const RUNTIME_MAJOR = 26
/** A lock older than this belongs to no living install. */
const LOCK_STALE_MS = 15 * 60_000
const FORWARDED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR2']

const root = fileURLToPath(new URL('..', import.meta.url))
const modules = path.join(root, 'node_modules')
/**
 * Where the runtime keeps what it compiled, which takes most of a command's start. Beside the code, so that whoever could put
 * something there could change the code itself; where it cannot be written there is none. `gateway/keyless.ts` knows it too.
 */
const compiled = path.join(modules, '.cache', 'keyless-compiled')
const isRuntime = Number(process.versions.node.split('.')[0]) >= RUNTIME_MAJOR
const runtime = isRuntime ? process.execPath : path.join(modules, 'node', 'bin', 'node')

const [first, ...rest] = process.argv.slice(2)
const isFile = first === '--runtime'
if (isFile && rest.length === 0) fail('--runtime needs a file, or vitest')

if (!isComplete(isFile)) install()
if (!existsSync(runtime)) {
  fail(`Node ${RUNTIME_MAJOR} is missing at ${runtime}.
  Its package fetches it in an install script; if npm is set to ignore-scripts, run: npm rebuild node --ignore-scripts=false
  or start this with Node ${RUNTIME_MAJOR} or newer.`)
}
// No debugger can be made to attach to a gateway that runs: it would read every credential.
handOver(
  isFile
    ? fileArguments(rest)
    : ['--disable-sigusr1', path.join(root, 'gateway', 'keyless.ts'), ...process.argv.slice(2)],
)

function fileArguments([file, ...args]) {
  return [file === 'vitest' ? path.join(modules, 'vitest', 'vitest.mjs') : path.resolve(file), ...args]
}

/** Whether what is installed is what the lock file names. Without a lock file this is no clone, and npm has installed it. */
function isComplete(withTools) {
  const lockFile = path.join(root, 'package-lock.json')
  if (!existsSync(lockFile)) return true
  if (!existsSync(runtime)) return false
  const wanted = readFileSync(lockFile)
  const digest = createHash('sha256').update(wanted).digest('hex')
  const stamp = path.join(modules, '.keyless-lock')
  if (readText(stamp) === digest) return true
  const installed = readText(path.join(modules, '.package-lock.json'))
  if (installed === undefined) return false
  const missing = missingPackages(JSON.parse(wanted.toString()), JSON.parse(installed))
  // The development tools are wanted for tests, and for the runtime if this Node is too old to be it.
  if (missing.some((entry) => withTools || !entry.dev)) return false
  if (missing.length === 0) writeQuietly(stamp, digest)
  return true
}

function missingPackages(wanted, installed) {
  return Object.entries(wanted.packages)
    .filter(([place, entry]) => place !== '' && !entry.optional && installed.packages[place]?.version !== entry.version)
    .map(([, entry]) => entry)
}

function install() {
  const release = takeLock()
  try {
    if (isComplete(isFile)) return // another start did it while this one waited
    console.error('keyless: installing the locked dependencies with npm ci (only this once, about a minute) …')
    const npm = process.env.npm_execpath?.endsWith('npm-cli.js')
      ? [process.execPath, process.env.npm_execpath]
      : [process.platform === 'win32' ? 'npm.cmd' : 'npm']
    const args = [
      ...npm.slice(1),
      'ci',
      '--include=dev',
      '--loglevel=error',
      '--no-audit',
      '--no-fund',
      '--no-progress',
    ]
    const done = spawnSync(npm[0], args, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] })
    if (done.error) fail(`npm could not be started: ${done.error.message}`)
    if (done.signal) process.kill(process.pid, done.signal)
    if (done.status !== 0) fail(`npm ci failed with code ${done.status}; what it said is above.`)
  } finally {
    release()
  }
}

/** One install at a time: two starts from a fresh clone must not empty node_modules under each other. */
function takeLock() {
  const dir = path.join(root, '.keyless')
  const lock = path.join(dir, 'install.lock')
  let told = false
  for (;;) {
    mkdirSync(dir, { recursive: true })
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' })
      process.once('exit', () => releaseLock(dir, lock))
      return () => releaseLock(dir, lock)
    } catch (cause) {
      if (cause.code !== 'EEXIST' && cause.code !== 'ENOENT') throw cause
    }
    const owner = readText(lock)
    if (owner !== undefined && isAbandoned(lock, owner)) breakLock(lock, owner)
    if (!told) console.error(`keyless: waiting for the installation that process ${owner ?? '?'} is doing …`)
    told = true
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 200)
  }
}

function isAbandoned(lock, owner) {
  try {
    if (Date.now() - statSync(lock).mtimeMs > LOCK_STALE_MS) return true
    if (owner !== '') process.kill(Number(owner), 0)
    return false
  } catch (cause) {
    return cause.code === 'ESRCH'
  }
}

/** Only the lock that was seen may go: by now another start may have broken it and taken its own. */
function breakLock(lock, owner) {
  const aside = `${lock}.${process.pid}`
  try {
    renameSync(lock, aside)
    if (readText(aside) !== owner) linkSync(aside, lock)
  } catch {
    // somebody else was faster; the next round sees what there is now
  }
  rmSync(aside, { force: true })
}

function releaseLock(dir, lock) {
  if (readText(lock) !== String(process.pid)) return
  rmSync(lock, { force: true })
  try {
    rmdirSync(dir)
  } catch {
    // a data directory is in use there, or another start is waiting
  }
}

/** Become the runtime. Where one process cannot replace itself by another, stand in front of it without being noticed. */
function handOver(args) {
  const env = { NODE_COMPILE_CACHE: compiled, ...process.env, ...(!isFile && { PATH: pathWithoutOurTools() }) }
  if (process.execve && process.platform !== 'win32') process.execve(runtime, [runtime, ...args], env)
  const child = spawn(runtime, args, { stdio: 'inherit', env })
  // Ctrl-C on a terminal reaches the child by itself; forwarding it too would look like a second, impatient one.
  const onTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY
  for (const signal of FORWARDED) {
    process.on(signal, () => {
      if (signal !== 'SIGINT' || !onTerminal) child.kill(signal)
    })
  }
  child.once('error', (cause) => fail(`${runtime} could not be started: ${cause.message}`))
  child.once('exit', (code, signal) => {
    if (!signal) process.exit(code ?? 1)
    process.removeAllListeners(signal)
    process.kill(process.pid, signal)
    setTimeout(() => process.exit(128 + (constants.signals[signal] ?? 0)), 1000)
  })
}

/** npm puts our own tools first on PATH, our `node` among them: a command started by `keyless run` must find the user's. */
function pathWithoutOurTools() {
  const all = process.env.PATH ?? ''
  if (!process.env.npm_command) return all
  const tools = path.join(modules, '.bin')
  return all
    .split(path.delimiter)
    .filter((dir) => dir !== tools)
    .join(path.delimiter)
}

function readText(file) {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}

/** The stamp only saves time: a read-only clone works without it. */
function writeQuietly(file, text) {
  try {
    writeFileSync(file, text)
  } catch {
    // compared again next time
  }
}

function fail(text) {
  console.error(`keyless: ${text}`)
  process.exit(1)
}
