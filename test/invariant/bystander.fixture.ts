/** Another agent that goes on working while one does its worst: `bystander-child.fixture.ts`, from the test's side. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { basic } from './agent.fixture.ts'

export interface Figures {
  readonly calls: number
  readonly failures: readonly string[]
  /** Milliseconds of a call. */
  readonly p50: number
  readonly p99: number
  readonly max: number
}

export interface Bystander {
  /** Of its upstream. */
  readonly port: number
  /** Begin to call. */
  begin(way: { readonly port: number; readonly handle: string; readonly host: string }): void
  /** How its calls went since this was asked last. */
  figures(): Promise<Figures>
  stop(): void
}

const CHILD = fileURLToPath(new URL('bystander-child.fixture.ts', import.meta.url))

export async function openBystander(): Promise<Bystander> {
  const child = spawn(process.execPath, [CHILD], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  const [port] = (await once(child, 'message')) as [number]
  return {
    port,
    begin: (way) =>
      void child.send({ port: way.port, authorization: basic(way.handle), url: `http://${way.host}:${port}/` }),
    async figures() {
      child.send('figures')
      const [{ times, failures }] = (await once(child, 'message')) as [{ times: number[]; failures: string[] }]
      times.sort((a, b) => a - b)
      const at = (part: number) => Math.round((times[Math.floor(times.length * part)] ?? 0) * 10) / 10
      return { calls: times.length, failures, p50: at(0.5), p99: at(0.99), max: at(1 - 1 / Math.max(1, times.length)) }
    },
    stop: () => void child.kill(),
  }
}
