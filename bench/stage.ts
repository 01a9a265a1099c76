/** Everything a measurement needs, in a directory that is thrown away: the far side, nginx as a proxy, the gateway. */
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { stringify } from 'yaml'
import { type ThrowAwayTls, throwAwayTls } from '../deploy/demo/certificate.ts'
import { freePorts, untilListening } from '../test/rig/ports.ts'
import { ROOT, type Running, runOk, start } from '../test/rig/process.ts'
import { type Peer, startPeers } from './peers.ts'
import { onProcessor } from './processor.ts'

export const HOST = 'bench.keyless.test'
/** Bytes of the answer's body. */
export const BODY_BYTES = 1024
/** Bytes behind `/big/file`. */
export const BIG_BYTES = 1024 * 1024 * 1024

export interface Stage {
  readonly ports: Ports
  /** Of the proxies, for their CPU time. */
  readonly nginxPid: number
  readonly relayPid: number
  readonly gatewayPid: number
  readonly peers: readonly Peer[]
  /** Of a task that may read both services. */
  readonly handle: string
  readonly upstreamCa: string
  readonly gatewayCa: string
  stop(): Promise<void>
}

interface Ports {
  /** The far side, cleartext and TLS. */
  readonly clear: number
  readonly tls: number
  /** nginx in front of each. */
  readonly nginxClear: number
  readonly nginxTls: number
  /** A bare relay in Node in front of the first. */
  readonly relay: number
  /** Endless event streams, from a process of their own. */
  readonly events: number
  readonly proxy: number
  readonly control: number
}

export async function setUp(): Promise<Stage> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-bench-'))
  const [clear = 0, tls = 0, nginxClear = 0, nginxTls = 0, relay = 0, events = 0, proxy = 0, control = 0] =
    await freePorts(8)
  const spare = await freePorts(3)
  const ports = { clear, tls, nginxClear, nginxTls, relay, events, proxy, control }
  const running: Running[] = []
  const stop = async () => {
    await Promise.all(running.map((one) => one.stop()))
    await rm(dir, { recursive: true, force: true })
  }
  try {
    const certificate = await throwAwayTls([HOST, `tls.${HOST}`, '127.0.0.1'])
    await Promise.all([writeFile(join(dir, 'ca.pem'), certificate.caPem), writeCertificate(dir, certificate)])
    await makeBigFile(dir)
    running.push(startOn('load', 'bench/events.ts', String(events)))
    running.push(await startNginx(dir, 'upstream', upstreamServers(dir, ports), 'load'))
    const nginx = await startNginx(dir, 'proxy', proxyServers(dir, ports), 'measured')
    running.push(nginx)
    const bare = startOn('measured', 'bench/relay.ts', String(relay), String(clear))
    running.push(bare)
    const peers = await startPeers({ dir, host: HOST, far: clear, ports: spare })
    running.push(...peers.map((one) => one.running))
    const settings = await writeSettings(dir, ports)
    const gateway = startOn('measured', 'gateway/keyless.ts', 'start', '-c', settings)
    running.push(gateway)
    await Promise.all([clear, tls, nginxClear, nginxTls, relay, events].map((port) => untilListening(port)))
    await Promise.race([
      untilListening(proxy, 20_000),
      gateway.ended.then((ended) => Promise.reject(new Error(ended.stderr))),
    ])
    const opened = JSON.parse(
      await keyless('task', 'open', '-c', settings, '-t', 'be measured', '--scope', 'bench:* bench-tls:*', '--json'),
    )
    return {
      ports,
      nginxPid: nginx.pid,
      relayPid: bare.pid,
      gatewayPid: gateway.pid,
      peers: peers.map((one) => one.peer),
      handle: opened.handle,
      upstreamCa: join(dir, 'ca.pem'),
      gatewayCa: join(dir, 'data', 'keys', 'ca.pem'),
      stop,
    }
  } catch (cause) {
    await stop()
    throw cause
  }
}

/** One of the gateway's own commands. */
export function keyless(...args: string[]): Promise<string> {
  return runOk(process.execPath, [join(ROOT, 'gateway/keyless.ts'), ...args])
}

function startOn(which: 'measured' | 'load', file: string, ...args: string[]): Running {
  const [program, ...rest] = onProcessor(which, [process.execPath, join(ROOT, file), ...args])
  return start(program, rest)
}

/** Everything on, as by default: policy, sealed leases, fsynced log, scrubbing. Only the doors and the far side are named. */
async function writeSettings(dir: string, ports: Ports): Promise<string> {
  await mkdir(join(dir, 'data'), { mode: 0o700 })
  await writeFile(join(dir, 'key'), `bench-${crypto.randomUUID()}`, { mode: 0o600 })
  const match = ['GET /items/{id}', 'GET /big/{name}', 'GET /events/{id}']
  const operations = { 'items.read': { match, access: 'read' } }
  const slots = [{ in: 'header', name: 'authorization', prefix: 'Bearer ' }]
  const service = { title: 'Bench', hosts: [HOST], addresses: ['127.0.0.1/32'], slots, operations }
  await writeFile(
    join(dir, 'bench.yaml'),
    stringify({ name: 'bench', ...service, ports: [ports.clear, ports.events], unsafe_cleartext: true }),
  )
  await writeFile(
    join(dir, 'bench-tls.yaml'),
    stringify({ name: 'bench-tls', ...service, hosts: [`tls.${HOST}`], ports: [ports.tls] }),
  )
  const file = join(dir, 'keyless.yaml')
  await writeFile(
    file,
    stringify({
      data_dir: join(dir, 'data'),
      listen: { proxy: `127.0.0.1:${ports.proxy}`, control: `127.0.0.1:${ports.control}` },
      services: [join(dir, 'bench.yaml'), join(dir, 'bench-tls.yaml')],
      credentials: Object.fromEntries(
        ['bench', 'bench-tls'].map((name) => [name, { provider: 'static', value: { file: join(dir, 'key') } }]),
      ),
      limits: { agent_concurrency: 8192 },
      upstream: { ca: [join(dir, 'ca.pem')], hosts: { [HOST]: '127.0.0.1', [`tls.${HOST}`]: '127.0.0.1' } },
    }),
  )
  return file
}

/** A hole of this size: it costs no disk, and nginx sends it like any other file. */
async function makeBigFile(dir: string): Promise<void> {
  await mkdir(join(dir, 'big'))
  await writeFile(join(dir, 'big', 'file'), '')
  await truncate(join(dir, 'big', 'file'), BIG_BYTES)
}

async function writeCertificate(dir: string, { key, cert }: ThrowAwayTls): Promise<void> {
  await writeFile(join(dir, 'tls.key'), key, { mode: 0o600 })
  await writeFile(join(dir, 'tls.pem'), cert)
}

function upstreamServers(dir: string, { clear, tls }: Ports): string {
  const answer = `location / { default_type text/plain; return 200 "${'x'.repeat(BODY_BYTES)}"; }`
  return `
    server { listen 127.0.0.1:${clear}; ${answer} location /big/ { root ${dir}; } }
    server { listen 127.0.0.1:${tls} ssl; ${certificateOf(dir)} ${answer} }`
}

/** nginx as it is usually set up in front of a service, attaching a fixed key. */
function proxyServers(dir: string, { clear, tls, nginxClear, nginxTls }: Ports): string {
  const location = (to: string) => `location / {
      proxy_pass ${to}; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host ${HOST};
      proxy_set_header Authorization "Bearer fixed"; proxy_ssl_trusted_certificate ${dir}/ca.pem; proxy_ssl_verify on;
      proxy_ssl_name ${HOST}; proxy_ssl_server_name on; }`
  const far = (name: string, port: number) =>
    `upstream ${name} { server 127.0.0.1:${port}; keepalive 128; keepalive_requests 1000000000; }`
  return `
    ${far('clear', clear)} ${far('secure', tls)}
    server { listen 127.0.0.1:${nginxClear}; ${location('http://clear')} }
    server { listen 127.0.0.1:${nginxTls} ssl; ${certificateOf(dir)} ${location('https://secure')} }`
}

function certificateOf(dir: string): string {
  return `ssl_certificate ${dir}/tls.pem; ssl_certificate_key ${dir}/tls.key;`
}

async function startNginx(dir: string, name: string, servers: string, where: 'measured' | 'load'): Promise<Running> {
  const home = join(dir, name)
  await mkdir(home)
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${home}/${kind};`,
  )
  await writeFile(
    join(home, 'nginx.conf'),
    `daemon off; worker_processes 1; pid ${home}/pid; error_log stderr error;
     ${userInfo().uid === 0 ? 'user root;' : ''}
     events { worker_connections 16384; }
     http { access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; ${temporary.join(' ')} ${servers} }`,
  )
  const [program, ...args] = onProcessor(where, ['nginx', '-p', home, '-c', join(home, 'nginx.conf'), '-e', 'stderr'])
  return start(program, args, { env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/usr/local/sbin` } })
}
