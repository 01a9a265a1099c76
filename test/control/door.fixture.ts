/** A control door over real grants on a real store; only record and policy are played, and show what they were asked. */
import { mkdtempSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ControlClient, controlClient } from '../../gateway/cli/control-client.ts'
import { type ControlDoor, type ControlDoorOptions, openControlDoor } from '../../gateway/control/door.ts'
import { createGrants, type Grants } from '../../gateway/grant/grants.ts'
import { openSqliteStore } from '../../gateway/grant/store/sqlite.ts'
import type { InstructionRooms } from '../../gateway/instruction.ts'
import type { StatusView } from '../../gateway/protocol/control-status.ts'
import type { Decision } from '../../gateway/protocol/decision.ts'
import type { Agent, Grant } from '../../gateway/protocol/grant.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { newKey, storeKey } from '../grant/grant.fixture.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'

export const triage: Agent = {
  id: 'spiffe://acme.test/agents/triage',
  owner: 'ana',
  purpose: 'triage',
  riskTier: 'low',
}

export interface Rig {
  readonly door: ControlDoor
  readonly client: ControlClient
  readonly grants: Grants
  readonly clock: ManualClock
  readonly dir: string
  readonly socketPath: string
  /** Steps of every instruction, in order. */
  readonly record: string[]
  readonly ended: Grant[]
  readonly reported: unknown[]
  readonly url: string
  close(): Promise<void>
}

export interface RigChanges extends Partial<ControlDoorOptions> {
  readonly agents?: readonly Agent[]
  /** Play policy. */
  readonly effect?: 'allow' | 'deny'
  /** Play a log that cannot be written. */
  readonly commit?: () => Promise<never>
}

export async function openRig(changes: RigChanges = {}): Promise<Rig> {
  const { agents = [triage], effect = 'allow', commit, ...options } = changes
  const dir = mkdtempSync(join(tmpdir(), 'kd-'))
  const clock = manualClock()
  const ended: Grant[] = []
  const reported: unknown[] = []
  const record: string[] = []
  const store = openSqliteStore({ path: join(dir, 'state.sqlite'), clock })
  const grants = createGrants({
    tenant: 'acme',
    identities: { client: async () => undefined, human: unasked, workload: unasked },
    maxDepth: 3,
    policySet: () => 'sha256:0',
    serveOffline: unasked,
    store,
    issuer: 'http://127.0.0.1:8081',
    signing: { current: newKey(), retired: [] },
    storeKey,
    agents: new Map(agents.map((agent) => [agent.id, agent])),
    knowsOperation: (pattern) => pattern.startsWith('github:'),
    ttl: { defaultS: 900, maxS: 1800 },
    limits: { concurrency: 1024, queue: 1024, queueTimeoutMs: 10_000 },
    heartbeatS: 15,
    clock,
    onEnded: (grant) => void ended.push(grant),
  })
  const socketPath = options.socketPath ?? join(dir, 'run', 'control.sock')
  const door = await openControlDoor({
    host: '127.0.0.1',
    port: 0,
    tenant: 'acme',
    human: { iss: 'local:test', sub: 'ana' },
    publicUrl: 'http://127.0.0.1:8081',
    rooms: playedRooms({ grants, record, effect, commit }),
    grants,
    identities: { client: unasked, proof: unasked, nonce: () => '' },
    status: async () => status,
    ready: async () => ({ ready: true, checks: { audit: true, redis: true } }),
    metrics: async () => '',
    records: undefined,
    readers: new Map(),
    recordReading: unasked,
    origin: 'keyless.local/acme',
    publicLog: { checkpoint: async () => undefined, tile: async () => undefined },
    witness: undefined,
    assertions: { metadata: {}, jwks: unasked },
    forget: unasked,
    connections: { begin: unasked, progress: unasked, list: unasked, disconnect: unasked },
    flow: { offer: unasked, leave: unasked, callback: unasked },
    isConnectable: () => false,
    signals: { receive: undefined, streams: new Map(), metadata: {} },
    webhooks: { list: unasked, retry: unasked, test: unasked },
    secrets: { list: unasked, set: unasked, rotate: unasked, remove: unasked, reseal: unasked },
    clock,
    report: (cause) => void reported.push(cause),
    ...options,
    socketPath,
  })
  return {
    door,
    client: controlClient(socketPath),
    grants,
    clock,
    dir,
    socketPath,
    record,
    ended,
    reported,
    url: `http://127.0.0.1:${door.port}`,
    async close() {
      await door.drain(1_000)
      await store.close()
      rmSync(dir, { recursive: true, force: true })
    },
  }
}

/** OAuth has its own rig. */
const unasked = async (): Promise<never> => {
  throw new Error('no test of this file asks for that')
}

function playedRooms(o: {
  grants: Grants
  record: string[]
  effect: 'allow' | 'deny'
  commit: (() => Promise<never>) | undefined
}): InstructionRooms {
  const { grants, record, effect } = o
  const decision = {
    effect,
    code: effect === 'deny' ? 'policy_denied' : undefined,
    detail: 'a rule says no',
    errors: [],
    obligations: {},
  } as unknown as Decision
  return {
    grants,
    policy: { evaluateInstruction: () => decision },
    approvals: { instructed: async () => undefined },
    audit: {
      openInstruction: (instruction) => {
        record.push(`open ${instruction.kind} ${instruction.id}`)
        return {
          id: instruction.id,
          proposed(proposal) {
            record.push(`proposed ${proposal.kind}`)
            return proposal
          },
          approved: (approved) => approved,
          decided(made) {
            record.push(`decided ${made.effect}`)
            return made
          },
          async commit() {
            await o.commit?.()
            record.push('committed')
            return {} as never
          },
          performed: (issued) => issued,
          async refused(refusal) {
            record.push(`refused ${refusal.code}`)
            return refusal
          },
        }
      },
    },
  }
}

export const logIsFull = async (): Promise<never> => {
  throw new GatewayError('audit_unavailable', 'the disk is full')
}

export const status: StatusView = {
  version: '0.1.0',
  proxy: 'http://127.0.0.1:8080',
  control: 'http://127.0.0.1:8081',
  data_dir: '/var/lib/keyless',
  audit_dir: '/var/lib/keyless/audit',
  ca_pem: '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n',
  now: 1780315200,
  services: [
    {
      name: 'github',
      hosts: ['api.github.com'],
      ports: [443],
      placeholders: { GITHUB_TOKEN: 'x' },
      base_urls: ['GITHUB_API_URL'],
      tools: ['git'],
      credential_configured: true,
    },
  ],
  secret_env: ['GITHUB_APP_KEY'],
  agents: [triage.id],
  default_agent: triage.id,
  redis: { configured: false, ok: true },
  unstored_revocations: 0,
  audit: { ok: true, size: 7, origin: 'keyless.local/acme', witnesses: [], exports: [] },
}

export interface Answer {
  readonly status: number
  readonly headers: Record<string, string | string[] | undefined>
  readonly text: string
  readonly json: Record<string, unknown>
}

/** A request with any bytes and headers, over TCP (`port`) or the socket (`socketPath`). */
export function ask(
  where: { port: number } | { socketPath: string },
  what: { method?: string; path: string; headers?: Record<string, string>; body?: string },
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const sent = request({
    host: '127.0.0.1',
    ...where,
    method: what.method ?? 'GET',
    path: what.path,
    headers: what.headers ?? {},
    agent: false,
  })
  sent.on('error', reject)
  sent.on('response', async (answer) => {
    let text = ''
    for await (const chunk of answer.setEncoding('utf8')) text += chunk
    let json = {}
    try {
      json = JSON.parse(text)
    } catch {}
    resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text, json })
  })
  sent.end(what.body)
  return promise
}
