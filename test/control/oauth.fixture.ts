/** A control door whose grants, record and clients are played; DPoP, forms, errors and HTTP are real. */
import { createSecretKey } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type ControlDoor, type ControlDoorOptions, openControlDoor } from '../../gateway/control/door.ts'
import type { Introspector } from '../../gateway/grant/introspect.ts'
import { createProofs } from '../../gateway/identity/dpop.ts'
import type { Decision } from '../../gateway/protocol/decision.ts'
import type { Confirmation, Grant } from '../../gateway/protocol/grant.ts'
import type { Workload } from '../../gateway/protocol/identity.ts'
import type { Instruction, IssuedGrant } from '../../gateway/protocol/instruction.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'
import { type Answer, ask, status } from './door.fixture.ts'

export const workload: Workload = {
  id: 'spiffe://acme.test/agents/triage',
  kind: 'private_key_jwt',
  issuer: 'https://keyless.test/gw',
  attributes: {},
  expiresAt: 2_000_000_000,
}

export const grant: Grant = {
  id: '0199f000-0000-7000-8000-000000000001',
  tenant: 'acme',
  human: { iss: 'https://id.acme.test', sub: 'ana' },
  agent: { id: workload.id, owner: 'ana', purpose: 'triage', riskTier: 'low' },
  task: { id: 'task_0199f000-0000-7000-8000-000000000002', purpose: 'triage issue 42' },
  authority: [{ operations: ['github:issues.read', 'github:pulls.*'] }],
  issuedAt: 1_780_315_200,
  expiresAt: 1_780_315_200 + 900,
  lineage: [
    { n: 0, type: 'human', id: 'ana' },
    { n: 1, type: 'ai_agent', id: workload.id, grant: '0199f000-0000-7000-8000-000000000001' },
  ],
  lineageHash: 'x',
  depth: 0,
  maxDepth: 3,
  delegable: true,
  ancestry: [],
  attestations: [],
}

export const PUBLIC_URL = 'https://keyless.test/gw'

export interface OauthRig {
  readonly door: ControlDoor
  readonly clock: ManualClock
  readonly socketPath: string
  /** Every instruction that the flow was given. */
  readonly served: Instruction[]
  /** `kind code` of every refusal in the log. */
  readonly refused: string[]
  readonly reported: unknown[]
  readonly asked: { token: string; by: Introspector }[]
  /** What the room of grants does next. Default: issues `grant`. */
  next: (instruction: Instruction) => IssuedGrant | null | Promise<IssuedGrant | null>
  /** The grant behind `eyJ.mine`. */
  held: Grant
  /** A form, as text or as parameters, over TCP. */
  post(path: string, form: string | Record<string, string>, headers?: Record<string, string>): Promise<Answer>
  nonce(): string
  /** As freshly opened, a minute later. */
  reset(): void
  close(): Promise<void>
}

export async function openOauthRig(changes: Partial<ControlDoorOptions> = {}): Promise<OauthRig> {
  const dir = mkdtempSync(join(tmpdir(), 'ko-'))
  const clock = manualClock()
  const socketPath = join(dir, 'control.sock')
  const jtis = new Set<string>()
  const once = (name: string) => !jtis.has(name) && jtis.add(name) !== undefined
  const proofs = createProofs({ once, clock, nonceKey: createSecretKey(Buffer.alloc(32, 7)) })
  const rig = {
    clock,
    socketPath,
    served: [] as Instruction[],
    refused: [] as string[],
    reported: [] as unknown[],
    asked: [] as { token: string; by: Introspector }[],
    next: (_instruction: Instruction): IssuedGrant | null | Promise<IssuedGrant | null> => ({
      grant,
      handle: 'kh_x',
      token: 'eyJ.grant',
    }),
    held: grant,
    nonce: () => proofs.nonce(),
  }
  const door = await openControlDoor({
    host: '127.0.0.1',
    port: 0,
    socketPath,
    publicUrl: PUBLIC_URL,
    tenant: 'acme',
    human: { iss: 'local:test', sub: 'ana' },
    rooms: playedRooms(rig),
    metrics: async () => '',
    records: undefined,
    readers: new Map(),
    recordReading: async () => undefined,
    origin: 'keyless.local/acme',
    publicLog: { checkpoint: async () => undefined, tile: async () => undefined },
    witness: undefined,
    assertions: { metadata: {}, jwks: async () => ({ keys: [] }) },
    forget: async () => ({ seq: 0, keys: [] }),
    connections: { begin: unasked, progress: unasked, list: unasked, disconnect: unasked },
    flow: { offer: unasked, leave: unasked, callback: unasked },
    isConnectable: () => false,
    signals: { receive: undefined, streams: new Map(), metadata: {} },
    webhooks: { list: unasked, retry: unasked, test: unasked },
    secrets: { list: unasked, set: unasked, rotate: unasked, remove: unasked, reseal: unasked },
    grants: {
      defaults: { agent: undefined, ttlS: 900, heartbeatS: 15 },
      heartbeat: async () => ({ expiresAt: 0 }),
      list: async () => [],
      jwks: () => ({ keys: [] }),
      async holder(token: string, proof?: Confirmation) {
        const { jkt, 'x5t#S256': leaf } = rig.held.cnf ?? {}
        const isProved = [
          [jkt, proof?.jkt],
          [leaf, proof?.['x5t#S256']],
        ].every(([bound, shown]) => bound === undefined || bound === shown)
        if (token === 'eyJ.mine' && isProved) return rig.held
        throw new GatewayError('grant_invalid', 'The grant is unknown here, or bound to another key.')
      },
      introspect: async (token: string, by: Introspector) => {
        rig.asked.push({ token, by })
        return token === 'eyJ.mine' ? { active: true, sub: 'ana' } : { active: false }
      },
    } as never,
    identities: {
      ...proofs,
      async client({ assertion }) {
        if (assertion === undefined) return undefined
        if (assertion.token === 'good') return workload
        throw new GatewayError(
          'client_invalid',
          'The client assertion is not acceptable: its signature does not verify.',
        )
      },
    },
    status: async () => status,
    ready: async () => ({ ready: true, checks: {} }),
    clock,
    report: (cause) => void rig.reported.push(cause),
    ...changes,
  })
  const { next } = rig
  return Object.assign(rig, {
    door,
    reset() {
      for (const list of [rig.served, rig.refused, rig.reported, rig.asked]) list.length = 0
      Object.assign(rig, { next, held: grant })
      clock.advance(60_000)
    },
    post: (path: string, form: string | Record<string, string>, headers: Record<string, string> = {}) =>
      ask(
        { port: door.port },
        {
          method: 'POST',
          path,
          headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
          body: typeof form === 'string' ? form : new URLSearchParams(form).toString(),
        },
      ),
    async close() {
      await door.drain(1_000)
      rmSync(dir, { recursive: true, force: true })
    },
  })
}

function playedRooms(rig: Pick<OauthRig, 'served' | 'refused' | 'next'>) {
  let current: Instruction
  return {
    policy: {
      evaluateInstruction: () => ({ effect: 'allow', errors: [], detail: '', obligations: {} }) as unknown as Decision,
    },
    approvals: { instructed: async () => undefined },
    grants: {
      propose(instruction: Instruction) {
        current = instruction
        rig.served.push(instruction)
        return {} as never
      },
      perform: async () => rig.next(current),
    },
    audit: {
      openInstruction: (instruction: Instruction) => ({
        id: instruction.id,
        proposed: <T>(proposal: T) => proposal,
        decided: <T>(decision: T) => decision,
        approved: <T>(approved: T) => approved,
        commit: async () => ({}) as never,
        performed: <T>(issued: T) => issued,
        async refused(refusal: GatewayError) {
          rig.refused.push(`${instruction.kind} ${refusal.code}`)
          return refusal
        },
      }),
    },
  }
}

const unasked = async (): Promise<never> => {
  throw new Error('no test of this file asks for that')
}
