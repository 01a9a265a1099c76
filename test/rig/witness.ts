/** `keyless witness` as its own process, for the logs that a test names. */
import { join } from 'node:path'
import { ROOT, type Running, start } from './process.ts'

export interface TestWitness {
  readonly url: string
  /** Verifier key, as it prints it. */
  readonly key: string
  readonly process: Running
  /** What `audit.witnesses` says of it. */
  readonly setting: string
}

/** @param logs files or texts of verifier keys. @param listen default: a free port. */
export async function startWitness(dir: string, logs: readonly string[], listen = '127.0.0.1:0'): Promise<TestWitness> {
  const args = ['witness', '--listen', listen, '--data', dir, ...logs.flatMap((log) => ['--log', log])]
  const process = start(globalThis.process.execPath, [join(ROOT, 'gateway/keyless.ts'), ...args])
  await process.says(/Ctrl-C/)
  const [, url = ''] = /url +(\S+)/.exec(process.stdout) ?? []
  const [, key = ''] = /key +(\S+)/.exec(process.stdout) ?? []
  return { url, key, process, setting: `{ url: "${url}", key: "${key}", addresses: ["127.0.0.1/32"] }` }
}

export async function submit(
  url: string,
  body: Buffer | string,
): Promise<{ status: number; type: string; text: string }> {
  const answer = await fetch(`${url}/add-checkpoint`, { method: 'POST', body: new Uint8Array(Buffer.from(body)) })
  return { status: answer.status, type: answer.headers.get('content-type') ?? '', text: await answer.text() }
}
