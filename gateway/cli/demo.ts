/**
 * The first taste: a demo API behind a real OAuth server in a process of its own, settings that lead to it, and one governed
 * call made the way users make theirs, through `keyless run`. Everything it writes lies under `<data>/demo`.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseDocument } from 'yaml'
import { openReader } from '../audit/files/reader.ts'
import { defaultDataDir } from '../settings/data-directory.ts'
import { localUser } from '../settings/parts.ts'
import type { Settings } from '../settings.ts'
import { chain } from './log/words.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const START_MS = 20_000

/** What the demo upstream prints when it is ready; `deploy/demo/upstream.ts`. */
interface Ready {
  readonly api: string
  readonly issuer: string
  readonly token_url: string
  readonly ca_file: string
  readonly client_id: string
  readonly client_secret_file: string
}

export interface Demo {
  /** `https://api.keyless.test:9443` */
  readonly api: string
  readonly issuer: string
  readonly settingsFile: string
  stop(): Promise<void>
}

/** @throws {Error} when the upstream does not come up, with what it said. */
export async function startDemo(): Promise<Demo> {
  const dir = join(defaultDataDir(), 'demo')
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const apiPort = String(await portNear(9443))
  const script = join(root, 'deploy', 'demo', 'upstream.ts')
  const child = spawn(
    process.execPath,
    [script, '--host', '127.0.0.1', '--api-port', apiPort, '--issuer-port', '0', '--dir', dir],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
      // Ctrl-C at the terminal is for the gateway: it drains first, then ends this process.
      detached: true,
    },
  )
  // A second Ctrl-C does not wait for `stop`: without this the demo would be left behind, on its port.
  const leave = () => child.kill('SIGTERM')
  process.once('exit', leave)
  child.once('exit', () => process.off('exit', leave))
  const ready = await readyLine(child)
  return { api: ready.api, issuer: ready.issuer, settingsFile: await writeSettings(dir, ready), stop: () => end(child) }
}

async function readyLine(child: ChildProcess): Promise<Ready> {
  let complaint = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    complaint = (complaint + chunk.toString()).slice(-2_000)
  })
  if (!child.stdout) throw new Error('The demo upstream has no standard output.')
  const lines = createInterface({ input: child.stdout })
  const failed = once(child, 'exit').then(() => {
    throw new Error(`The demo upstream did not start: ${complaint.trim() || 'it said nothing'}`)
  })
  const [line] = (await Promise.race([once(lines, 'line', { signal: AbortSignal.timeout(START_MS) }), failed])) as [
    string,
  ]
  failed.catch(() => {}) // its end after this is `stop`
  return JSON.parse(line) as Ready
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  await ended
}

/** The default, and those of examples/four-hops.ts. */
const AGENTS = {
  default: 'local work',
  research: 'answer a question',
  search: 'find notes',
  extract: 'read notes',
  call: 'fetch one note',
}

/** Real settings in real files: what the demo runs on is what a user would write. */
async function writeSettings(dir: string, ready: Ready): Promise<string> {
  const service = parseDocument(await readFile(join(root, 'policies', 'services', 'demo.yaml'), 'utf8'))
  service.set('ports', [Number(new URL(ready.api).port)])
  const serviceFile = join(dir, 'demo.yaml')
  await writeFile(serviceFile, service.toString(), { mode: 0o600 })
  const settingsFile = join(dir, 'keyless.yaml')
  await writeFile(settingsFile, await settingsText(serviceFile, ready), { mode: 0o600 })
  return settingsFile
}

async function settingsText(serviceFile: string, ready: Ready): Promise<string> {
  const issuer = new URL(ready.issuer).hostname
  const quote = (text: string) => JSON.stringify(text)
  return [
    '# Written by `keyless start` for the demo, anew at each start.',
    `listen: { proxy: "127.0.0.1:${await portNear(8080)}", control: "127.0.0.1:${await portNear(8081)}" }`,
    `services: [${quote(serviceFile)}]`,
    'agents:',
    ...Object.entries(AGENTS).map(
      ([name, purpose]) =>
        `  - { id: "spiffe://keyless.local/agent/${name}", owner: ${quote(localUser())}, purpose: ${quote(purpose)} }`,
    ),
    'credentials:',
    '  demo:',
    '    provider: oauth_client_credentials',
    `    token_url: ${quote(ready.token_url)}`,
    `    client_id: ${quote(ready.client_id)}`,
    '    client_auth: client_secret_basic',
    `    client_secret: { file: ${quote(ready.client_secret_file)} }`,
    '    scope: "notes:read notes:write files"',
    '    addresses: [127.0.0.1/32]',
    'upstream:',
    `  ca: [${quote(ready.ca_file)}]`,
    `  hosts: { ${quote(new URL(ready.api).hostname)}: 127.0.0.1, ${quote(issuer)}: 127.0.0.1 }`,
    '',
  ].join('\n')
}

/** The port itself if it is free, else one the system picks: port 8080 is busy on many developers' machines. */
async function portNear(wanted: number): Promise<number> {
  for (const port of [wanted, 0]) {
    const probe = createServer()
    const listening = once(probe, 'listening')
    probe.listen(port, '127.0.0.1')
    try {
      await listening
    } catch {
      continue
    }
    const address = probe.address()
    probe.close()
    await once(probe, 'close')
    if (typeof address === 'object' && address) return address.port
  }
  throw new Error('No free port on 127.0.0.1.')
}

const QUESTION = 'list my notes'

/**
 * Make the call, and say what happened in words.
 * @param signal ends the call's process when the gateway is told to stop meanwhile.
 */
export async function firstCall(demo: Demo, settings: Settings, signal: AbortSignal): Promise<string> {
  const url = `${demo.api}/notes`
  const program = `const answer = await fetch(${JSON.stringify(url)}); console.log(answer.status, await answer.text())`
  const answer = await keyless(
    [
      'run',
      '--task',
      QUESTION,
      '--scope',
      'demo:notes.list',
      '--',
      process.execPath,
      '--input-type=module',
      '-e',
      program,
    ],
    signal,
  )
  const { call, lineage } = await lastCall(join(settings.dataDir, 'audit'))
  return [
    'A first governed call has just been made:',
    '',
    '  1  You gave an agent a task, and one operation for it. The agent is a program without any key:',
    '',
    ...indent(`$ npx keyless run --task "${QUESTION}" --scope demo:notes.list -- node -e 'fetch("${url}")…'`, 7),
    '',
    '  2  Keyless saw its plain request, asked policy, wrote down who authorised what, and only then got an OAuth token from',
    `     ${demo.issuer} and attached it. The agent got the answer and never the token:`,
    '',
    ...indent(answer, 7),
    '',
    '  3  The task ended with the program, and with it all that it could do. What remains is the signed record:',
    '',
    ...indent(`$ npx keyless log lineage ${call}`, 7),
    ...indent(lineage, 7),
    '',
    ...tryNext(demo.api),
  ].join('\n')
}

function tryNext(api: string): string[] {
  const run = 'npx keyless run --task "try it"'
  return [
    'Try next, in another terminal, in this directory:',
    '',
    '  # the API sends back what it received: the token was there, and is starred out before the agent sees it',
    `  ${run} -- curl -s ${api}/echo`,
    '  # refused, and recorded: this task may list notes, nothing else',
    `  ${run} --scope demo:notes.list -- curl -s ${api}/notes/1`,
    '  # four agents, each with less than the one before; what is wider is refused',
    '  npm run example:four-hops',
    '  # who stood behind the last call, who did what, and proof that nobody changed it',
    '  npx keyless log lineage',
    '  npx keyless log tail',
    '  npx keyless log verify',
    '  # settings for your own key; the next start takes them in place of this demo',
    '  npx keyless init --service github',
    '',
    'Ctrl-C stops it.',
    '',
  ]
}

/** The last call and who authorised it. The task's end was recorded after the call's outcome, so both are in the log by now. */
async function lastCall(auditDir: string): Promise<{ call: string; lineage: string }> {
  const reader = await openReader(auditDir)
  try {
    let call: string | undefined
    for await (const entry of reader.tail(20)) if (entry.kind === 'call.outcome') call = entry.req
    if (call === undefined) throw new Error('The log has no call yet.')
    const entries = await reader.byReq(call)
    return { call, lineage: chain(entries, await reader.makers(entries[0])) }
  } finally {
    await reader.close()
  }
}

function indent(text: string, by: number): string[] {
  return text
    .trimEnd()
    .split('\n')
    .map((line) => (line === '' ? '' : `${' '.repeat(by)}${line}`))
}

/** One of our own commands, as a user would run it. */
async function keyless(args: readonly string[], signal: AbortSignal): Promise<string> {
  const child = spawn(process.execPath, [join(root, 'gateway', 'keyless.ts'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    signal,
  })
  child.on('error', () => {}) // stopped: `close` follows
  let output = ''
  let complaint = ''
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString()
  })
  child.stderr.on('data', (chunk: Buffer) => {
    complaint += chunk.toString()
  })
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error(`keyless ${args[0]} ended with ${code}: ${(complaint || output).trim()}`)
  return output
}
