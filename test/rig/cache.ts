/**
 * What tests need built before they can drive it (Python packages, Go and Rust programs): made once, kept under
 * `node_modules/.cache`, made again when what it is made of changes.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { ROOT, runOk } from './process.ts'

const CACHE = join(ROOT, 'node_modules', '.cache', 'keyless-test')
/** Milliseconds that a download and a build from nothing may take. */
const BUILD_MS = 300_000

/** Whether a command is on PATH, or where Debian puts it for root. */
export function onPath(command: string): boolean {
  const dirs = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin']
  return dirs.some((dir) => existsSync(join(dir, command)))
}

/** The interpreter of a virtual environment with exactly the packages of a requirements file (every one pinned). */
export async function pythonWith(requirements: string): Promise<string> {
  const dir = await kept('python', [requirements], async (made) => {
    await runOk('python3', ['-m', 'venv', '--without-pip', made])
    const pip = ['-m', 'pip', '--python', join(made, 'bin', 'python')]
    await runOk(
      'python3',
      [...pip, 'install', '--quiet', '--no-deps', '--no-compile', '--no-input', '--requirement', requirements],
      { timeoutMs: BUILD_MS },
    )
  })
  return join(dir, 'bin', 'python')
}

/** The program made of one Go file, or of a directory with its `go.mod`. */
export async function goProgram(source: string): Promise<string> {
  const isModule = !source.endsWith('.go')
  const inputs = isModule ? ['go.mod', 'go.sum', 'main.go'].map((name) => join(source, name)) : [source]
  const dir = await kept('go', inputs, (made) =>
    runOk('go', ['build', '-o', join(made, 'program'), isModule ? '.' : source], {
      timeoutMs: BUILD_MS,
      env: { ...process.env, GOTOOLCHAIN: 'local', GOFLAGS: '-buildvcs=false' },
      ...(isModule && { cwd: source }),
    }),
  )
  return join(dir, 'program')
}

/** The program of a crate with its `Cargo.lock` and one source file. */
export async function rustProgram(crate: string): Promise<string> {
  const inputs = ['Cargo.toml', 'Cargo.lock', 'src/main.rs'].map((name) => join(crate, name))
  const dir = await kept('rust', inputs, (made) =>
    runOk('cargo', ['build', '--quiet', '--locked', '--target-dir', made], { cwd: crate, timeoutMs: BUILD_MS }),
  )
  return join(dir, 'debug', 'matrix-reqwest')
}

/** A directory that exists only complete: built under another name, then renamed; whoever comes second takes the first one's. */
function kept(name: string, inputs: readonly string[], build: (dir: string) => Promise<unknown>): Promise<string> {
  const key = `${name} ${inputs.join(' ')}`
  const under = underWay.get(key) ?? keep(name, inputs, build)
  underWay.set(key, under)
  return under
}

/** Of this process. */
const underWay = new Map<string, Promise<string>>()

async function keep(
  name: string,
  inputs: readonly string[],
  build: (dir: string) => Promise<unknown>,
): Promise<string> {
  const hash = createHash('sha256').update(process.version)
  for (const input of inputs) hash.update(await readFile(input))
  const dir = join(CACHE, `${name}-${hash.digest('hex').slice(0, 16)}`)
  if (existsSync(dir)) return dir
  await mkdir(CACHE, { recursive: true })
  const made = await mkdtemp(`${dir}.`)
  try {
    await build(made)
    await rename(made, dir)
  } catch (cause) {
    await rm(made, { recursive: true, force: true })
    if (!existsSync(dir)) throw cause
  }
  return dir
}
