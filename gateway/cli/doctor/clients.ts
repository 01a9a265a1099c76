/**
 * What `keyless doctor` tries over the network: the proxy door, a TLS handshake through it, and the clients on PATH as they
 * would run under `keyless run`. They send TRACE, which the gateway answers itself and never forwards, so nothing reaches an
 * upstream; the gateway's own error header in the answer proves which way the request went.
 */
import { execFile } from 'node:child_process'
import { request } from 'node:http'
import type { Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { OpenedTask } from '../../protocol/control.ts'
import type { StatusView } from '../../protocol/control-status.ts'
import { plainHost } from '../../protocol/service.ts'
import type { ControlClient } from '../control-client.ts'
import { openForwarder } from '../run/forwarder.ts'
import type { GatewayAddress } from '../run/forwarder-wire.ts'
import { openSurroundings } from '../run/surroundings.ts'
import { type Check, failed, ok, skipped } from './check.ts'

const TIMEOUT_MS = 10_000
/** Long enough for all checks; the task is ended right after them. */
const TASK_TTL_S = 60
const PROOF = 'method_refused'

function gatewayAddress(proxy: string): GatewayAddress {
  const { hostname, port } = new URL(proxy)
  return { host: hostname.replace(/^\[|\]$/g, ''), port: Number(port || 80) }
}

/** A CONNECT without a grant must be answered by a challenge. */
export async function checkProxy(proxy: string): Promise<Check> {
  try {
    const { status, challenge, code, socket } = await connectThrough(
      gatewayAddress(proxy),
      'doctor.invalid:443',
      undefined,
    )
    socket.destroy()
    if (status === 407 && /basic/i.test(challenge ?? '')) return ok('proxy', `${proxy} answers, and asks for a grant`)
    if (code !== undefined) {
      return failed(
        'proxy',
        `${proxy} refuses connections of this machine as they are (${code})`,
        'keyless run needs the door plain from this machine: keep loopback out of listen.proxy_protocol.from, and do without listen.proxy_tls.require',
      )
    }
    return failed(
      'proxy',
      `${proxy} answered ${status} where it should ask for a grant`,
      'another program may hold that port: change listen.proxy',
    )
  } catch (cause) {
    return failed(
      'proxy',
      `${proxy}: ${messageOf(cause)}`,
      'is a firewall or another network namespace in between? The port is the setting listen.proxy',
    )
  }
}

/** The CA, with this process and with the clients on PATH, over one short task. */
export async function checkTrust(control: ControlClient, status: StatusView): Promise<Check[]> {
  const name = 'CA trusted'
  const service = status.services.find((one) => plainHost(one) !== undefined)
  const host = service && plainHost(service)
  if (service === undefined || host === undefined) return [skipped(name, 'no service with a fixed host is configured')]
  let task: OpenedTask
  try {
    task = await control.openTask({
      purpose: 'keyless doctor: is the CA trusted',
      scope: `${service.name}:*`,
      ttl_s: TASK_TTL_S,
    })
  } catch (cause) {
    return [
      failed(
        name,
        `no task could be opened: ${messageOf(cause)}`,
        'see the policy for opening tasks, and the registered agents',
      ),
    ]
  }
  const authorization = `Basic ${Buffer.from(`${task.task}:${task.handle}`).toString('base64')}`
  const forwarder = await openForwarder({ gateway: gatewayAddress(status.proxy), authorization })
  let removeFiles: (() => Promise<void>) | undefined
  try {
    const { env, remove } = await openSurroundings({ status, forwarder, inherited: process.env, java: false })
    removeFiles = remove
    return [
      await checkHandshake({ status, host, authorization }),
      ...(await Promise.all(CLIENTS.map((client) => checkClient(client, host, env)))),
    ]
  } finally {
    await forwarder.close()
    await removeFiles?.()
    await control.completeTask(task.task).catch(() => undefined)
  }
}

interface Handshake {
  readonly status: StatusView
  readonly host: string
  readonly authorization: string
}

async function checkHandshake({ status, host, authorization }: Handshake): Promise<Check> {
  const name = 'TLS interception'
  const remedy = 'the gateway signs with another CA than it shows: restart it, and see that all replicas share keys_dir'
  try {
    const tunnel = await connectThrough(gatewayAddress(status.proxy), `${host}:443`, authorization)
    if (tunnel.status !== 200) {
      tunnel.socket.destroy()
      return failed(
        name,
        `CONNECT ${host}:443 was answered ${tunnel.status}`,
        'see the last entries of the log: keyless log tail',
      )
    }
    const protocol = await handshake(tunnel.socket, host, status.ca_pem)
    return ok(name, `${protocol} as ${host}, signed by the gateway's CA`)
  } catch (cause) {
    return failed(name, `${host}: ${messageOf(cause)}`, remedy)
  }
}

function handshake(socket: Socket, host: string, ca: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const tls = connectTls({ socket, servername: host, ca }, () => {
      // Leaving without a request is what distrust looks like, and the gateway would warn of it.
      tls.write(`TRACE / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
    })
    tls.once('data', () => {
      resolve(tls.getProtocol() ?? 'TLS')
      tls.destroy()
    })
    tls.once('close', () => reject(new Error('closed without an answer')))
    tls.setTimeout(TIMEOUT_MS, () => tls.destroy(new Error('no TLS answer')))
    tls.once('error', reject)
  })
}

interface Through {
  readonly status: number
  readonly challenge: string | undefined
  /** What a gateway calls its refusal; another program says none. */
  readonly code: string | undefined
  readonly socket: Socket
}

function connectThrough(gateway: GatewayAddress, target: string, authorization: string | undefined): Promise<Through> {
  return new Promise((resolve, reject) => {
    const headers = { host: target, ...(authorization === undefined ? {} : { 'proxy-authorization': authorization }) }
    const sent = request({ ...gateway, method: 'CONNECT', path: target, headers, agent: false, timeout: TIMEOUT_MS })
    sent.once('timeout', () => sent.destroy(new Error('no answer')))
    sent.once('error', reject)
    sent.once('connect', (answer, socket: Socket) => {
      socket.setTimeout(0)
      const { 'proxy-authenticate': challenge, 'keyless-error': code } = answer.headers
      resolve({ status: answer.statusCode ?? 0, challenge, code: [code].flat()[0], socket })
    })
    sent.end()
  })
}

interface Client {
  readonly command: string
  readonly args: (url: string) => readonly string[]
}

const PYTHON = `import sys, urllib.request, urllib.error
try: urllib.request.urlopen(urllib.request.Request(sys.argv[1], method='TRACE'), timeout=10)
except urllib.error.HTTPError as e: print(e.headers.get('keyless-error'))
except urllib.error.URLError as e: sys.exit(str(e.reason))`

const NODE = `require('node:https').request(process.argv[1], { method: 'TRACE', timeout: 10000 }, (answer) => { console.log(answer.headers['keyless-error']); answer.resume() })
.on('error', (error) => { console.error(error.code ?? error.message); process.exitCode = 1 }).end()`

const CLIENTS: readonly Client[] = [
  { command: 'curl', args: (url) => ['-sS', '-o', '/dev/null', '-D', '-', '-X', 'TRACE', '--max-time', '10', url] },
  { command: 'python3', args: (url) => ['-c', PYTHON, url] },
  { command: 'node', args: (url) => ['-e', NODE, url] },
]

async function checkClient({ command, args }: Client, host: string, env: Record<string, string>): Promise<Check> {
  const name = `${command} under run`
  const { code, out, err } = await execute(command, args(`https://${host}/`), env)
  if (code === 'ENOENT') return skipped(name, 'not on PATH')
  if (out.includes(PROOF)) return ok(name, 'goes through the gateway and trusts it')
  if (err === '' && out.trim() !== '') return failed(name, 'went past the gateway', UNLED)
  const said = err.trim().split('\n').at(-1) || out.trim().split('\n').at(0) || `exit code ${code}`
  return failed(name, said, UNLED)
}

const UNLED = 'is it built to ignore the variables in docs/run.md? See "Clients" there'

function execute(
  command: string,
  args: readonly string[],
  env: Record<string, string>,
): Promise<{ code: unknown; out: string; err: string }> {
  return new Promise((resolve) => {
    execFile(command, args, { env, timeout: TIMEOUT_MS + 5_000 }, (error, out, err) =>
      resolve({ code: error?.code ?? 0, out, err }),
    )
  })
}

/** Connection errors to several addresses come as an AggregateError without a message. */
function messageOf(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause)
  return cause.message || String((cause as NodeJS.ErrnoException).code ?? cause.name)
}
