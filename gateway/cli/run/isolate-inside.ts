/**
 * The one program of ours beside an isolated command, and a process of its own. Whatever address the command connects to, it is
 * this process that answers, and leads the connection to the run's forwarder over a unix socket, which is the only way out there
 * is. It reads nothing of what passes. The command ends with it, and it with the launcher.
 */

import { createSocket } from 'node:dgram'
import { accessSync, constants, statSync } from 'node:fs'
import { request } from 'node:http'
import { connect, createServer, type ListenOptions, type Server, type Socket } from 'node:net'
import { delimiter, join } from 'node:path'
import { cannotStart, type Ending, superviseChild } from './child.ts'
import { splice } from './forwarder-tunnel.ts'
import { innerFlags } from './isolate-check.ts'
import { answerQuestion, StandIns } from './isolate-names.ts'

/** What the launcher says first, over the channel between the two. */
export interface Inside {
  /** The forwarder. */
  readonly socketPath: string
  /** On 127.0.0.1, where the proxy variables lead to. */
  readonly proxyPort: number
  /** Taken at every address. */
  readonly ports: readonly number[]
  readonly command: readonly string[]
  readonly env: Record<string, string>
  readonly cwd: string
  readonly uid: number
  readonly gid: number
  /** Path of the program. */
  readonly unshare: string
}

/** What the launcher says later: pass this on. */
export interface Passed {
  readonly pass: NodeJS.Signals
}

process.once('disconnect', () => process.exit(1))
process.once('message', async (inside: Inside) => {
  const ending = await serve(inside)
  process.send?.(ending, () => process.exit(0))
})

async function serve(inside: Inside): Promise<Ending> {
  const { socketPath, proxyPort, ports } = inside
  const standIns = new StandIns()
  await openNameServer(standIns)
  await listen(
    createServer({ allowHalfOpen: true }, (client) => leadToProxy(client, socketPath)),
    {
      port: proxyPort,
      host: '127.0.0.1',
    },
  )
  for (const port of ports) {
    const open = () => createServer(PAUSED, (client) => leadToTunnel(client, socketPath, standIns))
    // Without IPv6 there is no `::`.
    await listen(open(), { port, host: '::' }).catch(() => listen(open(), { port, host: '0.0.0.0' }))
  }
  return underOwnUser(inside)
}

/** What the client says before there is a tunnel waits for it. */
const PAUSED = { allowHalfOpen: true, pauseOnConnect: true }

function listen(server: Server, at: ListenOptions): Promise<void> {
  return new Promise((resolve, reject) => server.once('error', reject).listen(at, resolve))
}

function openNameServer(standIns: StandIns): Promise<void> {
  const server = createSocket('udp4')
  server.on('message', (query, { port, address }) => {
    const answer = answerQuestion(query, standIns)
    if (answer !== undefined) server.send(answer, port, address, () => undefined)
  })
  return new Promise((resolve, reject) => server.once('error', reject).bind(53, '127.0.0.1', resolve))
}

/** A client that knows of the proxy: what it says is for the forwarder. */
function leadToProxy(client: Socket, socketPath: string): void {
  splice(client, connect({ path: socketPath, allowHalfOpen: true }))
}

/** A client that believes it has reached its host: the address it has reached says which. */
function leadToTunnel(client: Socket, socketPath: string, standIns: StandIns): void {
  const address = client.localAddress?.replace(/^::ffff:/i, '') ?? ''
  client.on('error', () => client.destroy())
  // Loopback is the command's own: nobody listens there but itself.
  if (address === '' || address === '::1' || address.startsWith('127.')) return void client.resetAndDestroy()
  const host = standIns.nameOf(address) ?? (address.includes(':') ? `[${address.replace(/%.*$/, '')}]` : address)
  const authority = `${host}:${client.localPort}`
  const asked = request({ socketPath, agent: false, method: 'CONNECT', path: authority, headers: { host: authority } })
  const leave = () => asked.destroy()
  client.once('close', leave)
  asked.once('error', () => client.resetAndDestroy())
  asked.once('connect', ({ statusCode = 502 }, tunnel: Socket, head) => {
    client.off('close', leave)
    // Why, the launcher has told: a client that awaits its host's first words has no use for a proxy's.
    if (statusCode < 200 || statusCode > 299 || client.destroyed) {
      tunnel.destroy()
      return void client.resetAndDestroy()
    }
    if (head.length > 0) client.write(head)
    splice(client, tunnel)
  })
  asked.end()
}

/** The command in a user namespace that owns nothing around it, under the user's own id again. */
async function underOwnUser({ command, env, cwd, uid, gid, unshare }: Inside): Promise<Ending> {
  const say = (text: string) => void process.stderr.write(`keyless: ${text}\n`)
  const [name = ''] = command
  const problem = obstacle(name, env.PATH ?? '')
  if (problem !== undefined) return cannotStart(name, problem, say)
  process.on('message', ({ pass }: Passed) => void process.emit(pass, pass)) // superviseChild listens
  return superviseChild([unshare, ...innerFlags(uid, gid), `--wd=${cwd}`, '--', ...command], env, say)
}

/** What a spawn would meet, by execvp(3). Here it is unshare that would, which has other words for it. */
function obstacle(name: string, path: string): string | undefined {
  const files = name.includes('/') ? [name] : path.split(delimiter).map((place) => join(place || '.', name))
  const obstacles = files.map((file) => {
    try {
      accessSync(file, constants.X_OK)
      return statSync(file).isFile() ? undefined : 'EACCES'
    } catch (cause) {
      return (cause as NodeJS.ErrnoException).code ?? 'ENOENT'
    }
  })
  if (obstacles.includes(undefined)) return undefined
  return obstacles.includes('EACCES') ? 'EACCES' : 'ENOENT'
}
