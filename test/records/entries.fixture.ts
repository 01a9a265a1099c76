/** Logs on disk without a gateway: entries of all kinds with values that are easy to confuse, written as the sequencer writes them. */
import { appendFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import canonicalize from 'canonicalize'
import fc from 'fast-check'
import type { Entry } from '../../gateway/audit/entries/entry.ts'

export interface TestLog {
  readonly dir: string
  readonly origin: string
  /** Everything that was written, in order. */
  readonly entries: readonly Entry[]
  /** They get their numbers here. */
  append(entries: readonly Draft[]): Promise<void>
  remove(): Promise<void>
}

export type Draft = Omit<Entry, 'v' | 'seq' | 'log'>

export async function createTestLog(origin = 'keyless.local/acme'): Promise<TestLog> {
  const home = await mkdtemp(join(tmpdir(), 'keyless-records-'))
  const dir = join(home, 'audit')
  const entries: Entry[] = []
  await mkdir(dir)
  const sign = () => writeFile(join(dir, 'checkpoint'), `${origin}\n${entries.length}\nAAAA\n\n— unsigned\n`)
  await writeFile(join(dir, 'entries.jsonl'), '')
  await sign()
  return {
    dir,
    origin,
    entries,
    async append(drafts) {
      const added = drafts.map((draft, i): Entry => ({ ...draft, log: origin, seq: entries.length + i, v: 'ar/1' }))
      entries.push(...added)
      await appendFile(join(dir, 'entries.jsonl'), added.map((entry) => `${canonicalize(entry)}\n`).join(''))
      await sign()
    },
    remove: () => rm(home, { recursive: true, force: true }),
  }
}

const NAMES = ['ana', 'ana b', 'Ana', "o'neill", 'x" OR 1=1 --', 'ünïcode ß', '*', 'evil\u001b[31m', '日本']
export const pools = {
  human: NAMES,
  agent: ['spiffe://acme.test/a', 'spiffe://acme.test/a/b', 'ana'],
  task: ['task_1', 'task_2'],
  grant: ['g1', 'g2', 'g3'],
  host: ['api.github.com', 'github.com', 'evilgithub.com', '10.0.0.1', 'a.api.github.com'],
  operation: ['github:issues.read', 'github:issues.write', 'github:issuesx.read', 'git:hub'],
  status: [200, 204, 404, 403, 500],
  credential: ['github', 'openai'],
  trace: ['0af7651916cd43dd8448eb211c80319c', '1bf7651916cd43dd8448eb211c80319c'],
  prompt: ['sha256:n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg'],
  purpose: ['triage issue 42', 'Triage ISSUE 43', 'pay “invoice” №7', 'sealed:k1:abc'],
  path: ['/repos/acme/site', '/repos/ACME/site/42', '/%2e%2e/x', '/naïve/日本/ﬁle'],
} as const

const START_MS = Date.parse('2026-11-22T10:00:00.000Z')

/** One call, with or without an outcome, or an entry of another kind. Several of one millisecond are likely. */
export const happening: fc.Arbitrary<Draft[]> = fc
  .record({
    at: fc.integer({ min: 0, max: 40 }),
    human: fc.constantFrom(...pools.human),
    iss: fc.constantFrom('https://id.test', 'local:here'),
    agents: fc.array(fc.tuple(fc.constantFrom(...pools.agent), fc.constantFrom(...pools.grant)), {
      minLength: 0,
      maxLength: 3,
    }),
    task: fc.constantFrom(...pools.task),
    purpose: fc.constantFrom(...pools.purpose),
    kind: fc.constantFrom('call', 'call', 'call', 'grant.issued', 'grant.revoked', 'lease.issued', 'policy.loaded'),
    host: fc.constantFrom(...pools.host),
    operation: fc.option(fc.constantFrom(...pools.operation), { nil: undefined }),
    path: fc.constantFrom(...pools.path),
    status: fc.constantFrom(...pools.status),
    isDenied: fc.boolean(),
    hasOutcome: fc.boolean(),
    credential: fc.constantFrom(...pools.credential),
    trace: fc.option(fc.constantFrom(...pools.trace), { nil: undefined }),
    prompt: fc.option(fc.constantFrom(...pools.prompt), { nil: undefined }),
    req: fc.uuid(),
  })
  .map(draftsOf)

interface Happening {
  at: number
  human: string
  iss: string
  agents: [string, string][]
  task: string
  purpose: string
  kind: string
  host: string
  operation: string | undefined
  path: string
  status: number
  isDenied: boolean
  hasOutcome: boolean
  credential: string
  trace: string | undefined
  prompt: string | undefined
  req: string
}

function draftsOf(o: Happening): Draft[] {
  const ts = new Date(START_MS + o.at).toISOString()
  const lineage = [
    { n: 0, type: 'human', id: o.human },
    ...o.agents.map(([id, grant], i) => ({ n: i + 1, type: 'ai_agent', id, grant })),
  ]
  const chain = Buffer.from(JSON.stringify(lineage)).toString('base64url')
  const who = {
    human: { iss: o.iss, sub: o.human },
    task: { id: o.task, purpose: o.purpose },
    lineage,
    lineage_hash: chain,
  }
  const common = { ts, req: o.req, tenant: 'acme', ...(o.agents.length > 0 && who) }
  const trace = o.trace && { trace: `00-${o.trace}-b7ad6b7169203331-01` }
  if (o.kind === 'policy.loaded')
    return [{ ts, kind: o.kind, tenant: 'acme', facts: { policy_set: 'sha256:1' } } as unknown as Draft]
  if (o.kind === 'lease.issued') return [{ ...common, kind: o.kind, facts: leaseFacts(o) } as unknown as Draft]
  if (o.kind !== 'call')
    return [
      { ...common, kind: o.kind, grant: grantOf(o), decision: { effect: 'allow' }, facts: {} } as unknown as Draft,
    ]
  return callOf(o, { ...common, ...trace })
}

function leaseFacts({ credential, agents, operation }: Happening) {
  return {
    credential,
    cred_id: `hmac:${credential}`,
    provider: 'static',
    grant: agents.at(-1)?.[1],
    service: operation?.split(':')[0],
  }
}

function grantOf({ agents }: Happening) {
  const [agent, id] = agents.at(-1) ?? ['nobody', 'g0']
  return {
    id,
    agent: { id: agent, owner: 'olga' },
    authority: [],
    issued: START_MS / 1000,
    expires: START_MS / 1000 + 900,
  }
}

function callOf(o: Happening, common: Partial<Draft>): Draft[] {
  const target = {
    ...{ scheme: 'https', host: o.host, port: 443, method: 'GET', path: o.path, operation: o.operation },
    service: o.operation?.split(':')[0],
  }
  const decision = o.isDenied
    ? { effect: 'deny', code: 'policy_denied', status: 403, policy_ids: ['defaults#no'] }
    : { effect: 'allow', policy_ids: ['defaults#yes'] }
  const client = { ip: '10.0.0.9', mode: 'forward', ua: 'curl/8', prompt_hash: o.prompt }
  const decided = { ...common, kind: 'call.decision', client, target, decision } as unknown as Draft
  if (o.isDenied || !o.hasOutcome) return [decided]
  const cred = {
    provider: 'static',
    credential: o.credential,
    cred_id: `hmac:${o.credential}`,
    cache: 'hit',
    ephemeral: true,
    expires: 1,
  }
  const outcome = { status: o.status, error: null, dur_ms: 1.5, bytes_in: 3, bytes_out: 4, scrubbed: 0 }
  return [decided, { ...common, kind: 'call.outcome', cred, outcome } as unknown as Draft]
}
