/** Other proxies, measured beside the gateway where they are installed: each as a forward or reverse proxy that attaches a header. */
import { access, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { untilListening } from '../test/rig/ports.ts'
import { type Running, start } from '../test/rig/process.ts'
import { onProcessor } from './processor.ts'

export interface Peer {
  readonly name: string
  readonly pid: number
  readonly port: number
  /** `forward`: wants the absolute form. */
  readonly kind: 'forward' | 'reverse'
}

export interface PeerPlaces {
  readonly dir: string
  readonly host: string
  /** The far side, cleartext. */
  readonly far: number
  readonly ports: readonly number[]
}

interface Kind {
  readonly name: string
  readonly program: string
  readonly kind: Peer['kind']
  /** @returns the arguments, after writing what files it needs. */
  prepare(places: PeerPlaces, port: number): Promise<string[]>
}

const KINDS: readonly Kind[] = [
  {
    name: 'haproxy',
    program: 'haproxy',
    kind: 'reverse',
    async prepare({ dir, host, far }, port) {
      const file = join(dir, 'haproxy.cfg')
      await writeFile(
        file,
        `global\n  nbthread 1\n  maxconn 4096\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n  http-reuse always
listen peer\n  bind 127.0.0.1:${port}\n  http-request set-header Authorization "Bearer fixed"\n  http-request set-header Host ${host}\n  server far 127.0.0.1:${far}\n`,
      )
      return ['-db', '-f', file]
    },
  },
  {
    name: 'mitmproxy',
    program: 'mitmdump',
    kind: 'reverse',
    prepare: async ({ dir, far }, port) => [
      ...[
        '--mode',
        `reverse:http://127.0.0.1:${far}`,
        '--listen-host',
        '127.0.0.1',
        '--listen-port',
        String(port),
        '-q',
      ],
      ...['--set', `confdir=${join(dir, 'mitmproxy')}`, '--set', 'keep_host_header=true'],
      ...['--modify-headers', '/~q/Authorization/Bearer fixed'],
    ],
  },
]

/** Those that are on PATH, running. */
export async function startPeers(places: PeerPlaces): Promise<{ peer: Peer; running: Running }[]> {
  const started: { peer: Peer; running: Running }[] = []
  for (const [i, { name, program, kind, prepare }] of KINDS.entries()) {
    const port = places.ports[i]
    const path = await onPath(program)
    if (port === undefined || path === undefined) continue
    const [command, ...args] = onProcessor('measured', [path, ...(await prepare(places, port))])
    const running = start(command, args)
    await Promise.race([
      untilListening(port, 20_000),
      running.ended.then((ended) => Promise.reject(new Error(`${name}: ${ended.stderr}`))),
    ])
    started.push({ peer: { name, pid: running.pid, port, kind }, running })
  }
  return started
}

async function onPath(program: string): Promise<string | undefined> {
  for (const dir of [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/usr/local/sbin']) {
    const path = join(dir, program)
    if (
      await access(path).then(
        () => true,
        () => false,
      )
    )
      return path
  }
  return undefined
}
