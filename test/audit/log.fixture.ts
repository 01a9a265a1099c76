/** Builders for what the log records, each with one override, and logs in directories of their own. */
import { createSecretKey, randomBytes } from 'node:crypto'
import { mkdtemp, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Audit, createAudit } from '../../gateway/audit/audit.ts'
import { type Draft, draftFrom } from '../../gateway/audit/canonical.ts'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import type { LeaseFacts } from '../../gateway/audit/entries/record.ts'
import type { Disk } from '../../gateway/audit/files/disk.ts'
import { realDisk } from '../../gateway/audit/files/disk.ts'
import { type Log, type LogOptions, loadLogKey, openLog } from '../../gateway/audit/log.ts'
import { type Verdict, type VerifyOptions, verifyLog } from '../../gateway/audit/verify/verify.ts'
import type { Clock } from '../../gateway/protocol/clock.ts'
import type { Decision } from '../../gateway/protocol/decision.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { Inbound, Outcome, Reply } from '../../gateway/protocol/message.ts'
import type { Endpoint } from '../../gateway/protocol/service.ts'

export const ORIGIN = 'keyless.test/default'

export interface TestClock extends Clock {
  ms: number
}

export function testClock(ms = Date.parse('2026-11-21T23:04:05.123Z')): TestClock {
  return {
    ms,
    nowMs() {
      return this.ms
    },
    elapsedMs() {
      return this.ms
    },
  }
}

export function temporaryDir(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'keyless-audit-'))
}

export async function openTestLog(dir: string, change: Partial<LogOptions> = {}): Promise<Log> {
  const origin = change.origin ?? ORIGIN
  const key = change.key ?? (await loadLogKey(dir, origin))
  return openLog({ dir, origin, key, durability: 'fsync', clock: testClock(), ...change })
}

export function testAudit(log: Log, clock: Clock = testClock()): Audit {
  return createAudit({ log, clock, node: 'gw-1', version: '0.1.0', hmacKey: createSecretKey(randomBytes(32)) })
}

/** That nothing was changed, removed or added. What these builders write is no history that a gateway could have had: nobody issued the grants. */
export function verifyStored(dir: string, options: VerifyOptions = {}): Promise<Verdict> {
  return verifyLog(dir, { checks: 'integrity', ...options })
}

export function note(facts: Record<string, string | number> = {}): Draft {
  return draftFrom({ kind: 'policy.loaded', tenant: 'default', facts })
}

export async function linesOf(dir: string): Promise<string[]> {
  return (await readFile(join(dir, 'entries.jsonl'), 'utf8')).split('\n').slice(0, -1)
}

export async function entriesOf(dir: string): Promise<Entry[]> {
  return (await linesOf(dir)).map((line) => JSON.parse(line) as Entry)
}

/** A disk that fails when told to: `before` keeps the bytes from the file, `after` lets them reach it first, `half` tears them. */
export interface FailingDisk extends Disk {
  fails: 'before' | 'after' | 'half' | undefined
  cannotCut: boolean
  code: string
  writes: number
}

export function failingDisk(): FailingDisk {
  return {
    ...realDisk,
    fails: undefined,
    cannotCut: false,
    code: 'ENOSPC',
    writes: 0,
    store(batch, done) {
      this.writes += 1
      const error = Object.assign(new Error(`${this.code}: simulated`), { code: this.code })
      if (!this.fails) realDisk.store(batch, done)
      else if (this.fails === 'before') setImmediate(() => done(error))
      else {
        const bytes = this.fails === 'half' ? batch.bytes.subarray(0, batch.bytes.length / 2) : batch.bytes
        realDisk.store({ ...batch, bytes }, () => done(error))
      }
    },
    cutBack(fd, length, done) {
      if (this.cannotCut) setImmediate(() => done(Object.assign(new Error('EIO: simulated'), { code: 'EIO' })))
      else realDisk.cutBack(fd, length, done)
    },
  }
}

export function inbound(change: Partial<Inbound> = {}): Inbound {
  return {
    id: uuidv7(),
    tenant: 'default',
    mode: 'intercept',
    method: 'GET',
    scheme: 'https',
    host: 'api.github.com',
    port: 443,
    rawPath: '/repos/acme/site/issues?state=open',
    rawHeaders: ['authorization', 'Bearer canary-header-value'],
    hostHeader: 'api.github.com',
    presented: { token: 'canary-presented-token', scheme: 'basic', user: 'task' },
    client: { address: '127.0.0.1', userAgent: 'curl/8.5.0' },
    body: null,
    reply: {} as Reply,
    ...change,
  }
}

export function endpoint(change: Partial<Endpoint> = {}): Endpoint {
  return {
    service: {
      name: 'github',
      title: 'GitHub',
      hosts: ['api.github.com'],
      ports: [443],
      scheme: 'https',
      slots: [],
      operations: [],
      addresses: [],
      dialect: 'github',
      placeholders: {},
      baseUrls: [],
      tools: [],
      credential: 'github',
    },
    operation: {
      id: 'issues.read',
      name: 'github:issues.read',
      access: 'read',
      sensitivity: 'internal',
      returnsSecret: false,
      irreversible: false,
      websocket: false,
      captures: [],
    },
    scheme: 'https',
    host: 'api.github.com',
    port: 443,
    path: '/repos/acme/site/issues',
    rawPath: '/repos/acme/site/issues?state=open',
    params: {},
    ...change,
  }
}

export function grant(change: Partial<Grant> = {}): Grant {
  const id = uuidv7()
  const agent = 'spiffe://acme.test/agents/triage'
  return {
    id,
    tenant: 'default',
    human: { iss: 'local:workstation', sub: 'ana' },
    agent: { id: agent, owner: 'ana', purpose: 'triage support tickets', riskTier: 'low' },
    task: { id: uuidv7(), purpose: 'triage issue 42' },
    authority: [{ operations: ['github:issues.read'] }],
    issuedAt: 1_795_000_000,
    expiresAt: 1_795_000_900,
    lineage: [
      { n: 0, type: 'human', id: 'local:workstation#ana' },
      { n: 1, type: 'ai_agent', id: agent, grant: id },
    ],
    lineageHash: 'dGhlIGhhc2ggb2YgdGhlIGxpbmVhZ2Ugc3RlcHMgaGVyZQ',
    depth: 0,
    maxDepth: 3,
    delegable: true,
    ancestry: [],
    attestations: [],
    ...change,
  }
}

export function decision(change: Partial<Decision> = {}): Decision {
  return {
    effect: 'allow',
    code: undefined,
    detail: '',
    policyIds: ['github-read'],
    policySet: 'sha256:abc',
    errors: [],
    obligations: { ttlS: 300, singleUse: false },
    levels: [],
    ...change,
  }
}

export function leaseFacts(change: Partial<LeaseFacts> = {}): LeaseFacts {
  return {
    provider: 'static',
    credential: 'github',
    credentialId: 'hmac:abc',
    ephemeral: false,
    expiresAt: Number.POSITIVE_INFINITY,
    cache: 'hit',
    ...change,
  }
}

export function outcome(change: Partial<Outcome> = {}): Outcome {
  return {
    status: 200,
    sentBytes: 0,
    receivedBytes: 4123,
    scrubbed: 0,
    address: '140.82.112.5',
    error: undefined,
    ...change,
  }
}

/** One whole call: decided, recorded, leased, closed. */
export async function call(audit: Audit, change: Partial<Inbound> = {}): Promise<string> {
  const event = audit.openCall(inbound(change))
  event.located(endpoint())
  event.authenticated(grant())
  event.decided(decision())
  await event.commit()
  event.leased({ facts: leaseFacts() })
  event.closed(outcome())
  return event.id
}
