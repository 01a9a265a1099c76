/** A gateway in a process of its own, looked at from outside: its sockets, its memory, whether it lives, what its log says. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect } from 'vitest'
import { type ControlClient, controlClient } from '../../gateway/cli/control-client.ts'
import { ROOT, runOk } from '../rig/process.ts'
import { entriesOf, type Place, type Wanted, writeSite } from './services.fixture.ts'

export interface Weight {
  /** Heap and what hangs on it, after garbage was collected. */
  readonly bytes: number
  /** What keeps the process busy, by kind: `Timeout`, `TCPSocketWrap`, … */
  readonly resources: Readonly<Record<string, number>>
}

export interface Watched {
  readonly pid: number
  readonly port: number
  readonly control: ControlClient
  /** Of the gateway, for clients. */
  readonly ca: string
  readonly dataDir: string
  /** Everything said on stderr. */
  readonly stderr: string
  /** Open sockets of the process, listeners and its own among them. */
  sockets(): number
  residentBytes(): number
  /** Resident memory at its highest since it was forgotten. */
  peakBytes(): number
  forgetPeak(): void
  weigh(): Promise<Weight>
  entries(): ReturnType<typeof entriesOf>
  /** Fails unless the process ended well and its whole log is proved. */
  stop(): Promise<void>
}

const CHILD = fileURLToPath(new URL('watched-child.fixture.ts', import.meta.url))

export async function openWatched(place: Place, wanted: Wanted): Promise<Watched> {
  const site = await writeSite(place, wanted)
  const file = join(site.dir, 'keyless.yaml')
  const listen = wanted.settings?.listen === undefined ? 'listen: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }' : ''
  await writeFile(file, `data_dir: ${site.dir}/data\n${listen}\n${site.yaml}`)
  const child = spawn(process.execPath, ['--expose-gc', CHILD, file], { stdio: ['ignore', 'inherit', 'pipe', 'ipc'] })
  let stderr = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const { proxy } = (await answerOf(child, () => stderr)) as { proxy: string }
  const control = controlClient(join(site.dir, 'data', 'control.sock'))
  const { ca_pem: ca } = await control.status()
  const pid = child.pid as number
  return {
    pid,
    control,
    ca,
    port: Number(new URL(proxy).port),
    dataDir: join(site.dir, 'data'),
    get stderr() {
      return stderr
    },
    sockets: () => socketsOf(pid),
    residentBytes: () => memory(pid, 'VmRSS'),
    peakBytes: () => memory(pid, 'VmHWM'),
    forgetPeak: () => writeFileSync(`/proc/${pid}/clear_refs`, '5'),
    async weigh() {
      child.send('weigh')
      return (await answerOf(child, () => stderr)) as Weight
    },
    entries: () => entriesOf(join(site.dir, 'data')),
    async stop() {
      const ended = once(child, 'exit')
      expect(child.exitCode ?? child.signalCode, stderr).toBeNull()
      child.kill('SIGTERM')
      expect(await ended, stderr).toEqual([0, null])
      const args = [join(ROOT, 'gateway', 'keyless.ts'), 'log', 'verify', '--config', file]
      expect(await runOk(process.execPath, args)).toMatch(/sound/i)
      await site.remove()
    },
  }
}

/** The next thing that it says of itself. @throws with its last words if it ends instead. */
async function answerOf(child: ChildProcess, lastWords: () => string): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>()
  const fail = () => reject(new Error(`the gateway ended: ${lastWords()}`))
  child.once('message', resolve).once('exit', fail)
  try {
    return await promise
  } finally {
    child.off('message', resolve).off('exit', fail)
  }
}

function socketsOf(pid: number): number {
  const fds = `/proc/${pid}/fd`
  return readdirSync(fds).filter((fd) => {
    try {
      return readlinkSync(`${fds}/${fd}`).startsWith('socket:')
    } catch {
      return false // closed meanwhile
    }
  }).length
}

/** proc_pid_status(5), which counts in KiB. */
function memory(pid: number, name: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return 1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1])
}
