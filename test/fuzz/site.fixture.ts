/** A gateway before an upstream that sees every byte, and the reader of its log: what arrives is held against what was decided. */
import { type FileHandle, open, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import { controlClient } from '../../gateway/cli/control-client.ts'
import { openGateway } from '../../gateway/main.ts'
import { loadSettings } from '../../gateway/settings.ts'
import { type Operations, writeSite } from '../invariant/services.fixture.ts'
import { makeAuthority } from '../upstream/certificate.fixture.ts'
import { BALANCER, type Site } from './shapes.fixture.ts'

/** What listens on 127.0.0.1. */
export interface Upstream {
  readonly tlsPort: number
  readonly cleartextPort: number
  readonly caPem: string
}

export interface Fuzzed {
  readonly site: Site
  /** Calls that were decided since the last look, once all that were allowed are over. */
  decisions(): Promise<Decided[]>
  stop(): Promise<void>
}

export interface Decided {
  readonly isAllowed: boolean
  readonly code: string | undefined
  readonly method: string
  readonly service: string | undefined
  readonly path: string
  /** Of its outcome: undefined until there is one, null when it came to an end. */
  readonly error: string | null | undefined
  readonly bytesOut: number
}

export const KEY = 'a-standing-key-of-some-length'
const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']

/** `safe.keyless.test` over TLS with a credential, `plain.keyless.test` in the clear without, `modern` as `safe` by another port. */
export async function openFuzzed(upstream: Upstream, modernPort = upstream.tlsPort): Promise<Fuzzed> {
  const operations: Operations = {
    'any.call': { match: METHODS.flatMap((method) => [`${method} /`, `${method} /{rest**}`]), access: 'write' },
    'any.talk': { match: ['GET /ws'], access: 'write', websocket: true },
  }
  const written = await writeSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [
        { name: 'safe', operations },
        { name: 'modern', operations, ports: [modernPort === upstream.tlsPort ? 1 : modernPort], credential: 'safe' },
        { name: 'plain', operations, ports: [upstream.cleartextPort], slots: [], unsafe_cleartext: true },
      ],
      credentials: { safe: KEY },
    },
  )
  const doorCa = await writeDoor(written.dir)
  const file = join(written.dir, 'keyless.yaml')
  const listen = `
listen:
  proxy: "127.0.0.1:0"
  control: "127.0.0.1:0"
  proxy_tls: { cert: door.pem, key: door.key }
  proxy_protocol: { from: ["${BALANCER}/32"] }
`
  await writeFile(file, `data_dir: ${written.dir}/data\n${listen}${written.yaml}`)
  const settings = await loadSettings(file)
  const gateway = await openGateway(settings)
  const control = controlClient(settings.listen.controlSocket)
  const { handle } = await control.openTask({ scope: 'safe:* plain:* modern:*', purpose: 'fuzz', ttl_s: 3600 })
  const log = await open(join(settings.dataDir, 'audit', 'entries.jsonl'))
  const { ca_pem: ca } = await control.status()
  return {
    site: {
      port: Number(new URL(gateway.proxy).port),
      handle,
      doorCa,
      ca,
      tlsPort: upstream.tlsPort,
      cleartextPort: upstream.cleartextPort,
    },
    decisions: reader(log),
    async stop() {
      await log.close()
      await gateway.stop()
      await written.remove()
    },
  }
}

async function writeDoor(dir: string): Promise<string> {
  const authority = await makeAuthority()
  const door = await authority.issue(['localhost', '127.0.0.1'])
  await writeFile(join(dir, 'door.pem'), door.cert)
  await writeFile(join(dir, 'door.key'), door.key, { mode: 0o600 })
  return authority.pem
}

function reader(log: FileHandle): () => Promise<Decided[]> {
  let at = 0
  return async () => {
    const found: Entry[] = []
    for (const deadline = performance.now() + 2_000; ; ) {
      const { entries, end } = await readFrom(log, at)
      at = end
      found.push(...entries)
      const allowed = found.filter(({ kind, decision }) => kind === 'call.decision' && decision?.effect === 'allow')
      const over = found.filter(({ kind }) => kind === 'call.outcome')
      if (over.length >= allowed.length || performance.now() > deadline)
        return found.flatMap((entry) => decided(entry, found))
      await pause(2)
    }
  }
}

async function readFrom(log: FileHandle, start: number): Promise<{ entries: Entry[]; end: number }> {
  const { size } = await log.stat()
  const bytes = Buffer.alloc(size - start)
  if (bytes.length > 0) await log.read(bytes, 0, bytes.length, start)
  const end = bytes.lastIndexOf(0x0a) + 1
  const lines = bytes.toString('utf8', 0, end).split('\n').slice(0, -1)
  return { entries: lines.map((line) => JSON.parse(line) as Entry), end: start + end }
}

function decided({ kind, decision, target, req }: Entry, all: readonly Entry[]): Decided[] {
  if (kind !== 'call.decision' || target === undefined) return []
  const { method, service, path } = target
  const outcome = all.find((entry) => entry.kind === 'call.outcome' && entry.req === req)?.outcome
  const isAllowed = decision?.effect === 'allow'
  return [
    {
      isAllowed,
      code: decision?.code,
      method,
      service,
      path,
      error: outcome?.error,
      bytesOut: outcome?.bytes_out ?? 0,
    },
  ]
}
