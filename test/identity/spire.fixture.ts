/**
 * A SPIRE server and agent on this machine, where `spire-server` and `spire-agent` are on the PATH: join-token attestation of
 * the node, unix attestation of the workload, everything below one directory.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { freePort } from '../rig/ports.ts'
import { type Running, run, runOk, start } from '../rig/process.ts'

export interface Spire {
  /** What `spire-server --version` says. */
  readonly version: string
  /** PEM */
  readonly bundle: string
  /** Leaf and intermediates, and the leaf's key, PEM. */
  readonly svid: { readonly chain: string; readonly key: string }
  stop(): Promise<void>
}

export function hasSpire(): boolean {
  const places = (process.env.PATH ?? '').split(delimiter)
  return ['spire-server', 'spire-agent'].every((name) => places.some((place) => existsSync(join(place, name))))
}

/** An SVID for `spiffe://<domain><path>`, issued to this user through the Workload API. @throws with what SPIRE said. */
export async function openSpire(dir: string, domain: string, path: string): Promise<Spire> {
  const running: Running[] = []
  const stop = async () => {
    for (const child of running.reverse()) await child.stop()
  }
  try {
    const server = join(dir, 'server.sock')
    const port = await freePort()
    running.push(start('spire-server', ['run', '-config', write(dir, 'server.conf', serverConfig(dir, domain, port))]))
    await until(['spire-server', 'healthcheck', '-socketPath', server])
    const bundle = await runOk('spire-server', ['bundle', 'show', '-socketPath', server])
    write(dir, 'bootstrap.pem', bundle)
    const host = `spiffe://${domain}/host`
    const said = await runOk('spire-server', ['token', 'generate', '-socketPath', server, '-spiffeID', host])
    const token = /Token: (\S+)/.exec(said)?.[1] ?? ''
    const selector = `unix:uid:${process.getuid?.()}`
    const entry = ['-parentID', host, '-spiffeID', `spiffe://${domain}${path}`, '-selector', selector]
    await runOk('spire-server', ['entry', 'create', '-socketPath', server, ...entry])
    const config = write(dir, 'agent.conf', agentConfig(dir, domain, port))
    running.push(start('spire-agent', ['run', '-config', config, '-joinToken', token]))
    const out = join(dir, 'svid')
    mkdirSync(out)
    await until(['spire-agent', 'api', 'fetch', 'x509', '-socketPath', join(dir, 'agent.sock'), '-write', out])
    const read = (name: string) => readFileSync(join(out, name), 'utf8')
    const version = await run('spire-server', ['--version'])
    return {
      version: (version.stdout + version.stderr).trim(),
      bundle: read('bundle.0.pem'),
      svid: { chain: read('svid.0.pem'), key: read('svid.0.key') },
      stop,
    }
  } catch (cause) {
    await stop()
    throw cause
  }
}

function serverConfig(dir: string, domain: string, port: number): string {
  return `
server {
  bind_address = "127.0.0.1"
  bind_port = "${port}"
  socket_path = "${dir}/server.sock"
  trust_domain = "${domain}"
  data_dir = "${dir}/server"
}
plugins {
  DataStore "sql" { plugin_data { database_type = "sqlite3" connection_string = "${dir}/server.sqlite3" } }
  KeyManager "memory" { plugin_data {} }
  NodeAttestor "join_token" { plugin_data {} }
}
`
}

function agentConfig(dir: string, domain: string, port: number): string {
  return `
agent {
  data_dir = "${dir}/agent"
  server_address = "127.0.0.1"
  server_port = "${port}"
  socket_path = "${dir}/agent.sock"
  trust_bundle_path = "${dir}/bootstrap.pem"
  trust_domain = "${domain}"
}
plugins {
  KeyManager "memory" { plugin_data {} }
  NodeAttestor "join_token" { plugin_data {} }
  WorkloadAttestor "unix" { plugin_data {} }
}
`
}

function write(dir: string, name: string, text: string): string {
  writeFileSync(join(dir, name), text)
  return join(dir, name)
}

/** Another program's readiness can only be asked for again. */
async function until([command = '', ...args]: readonly string[]): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    const { code, stdout, stderr } = await run(command, args)
    if (code === 0) return
    if (attempt >= 60) throw new Error(`${command} ${args.join(' ')} still ends with ${code}\n${stdout}\n${stderr}`)
    await pause(500)
  }
}
