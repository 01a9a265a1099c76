import { createSecretKey } from 'node:crypto'
import { rm } from 'node:fs/promises'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Draft } from '../../gateway/audit/canonical.ts'
import { type Desk, RecordedCall } from '../../gateway/audit/entries/event.ts'
import { letterhead } from '../../gateway/audit/entries/letterhead.ts'
import { RecordedInstruction } from '../../gateway/audit/entries/recorded-instruction.ts'
import { Tally } from '../../gateway/audit/entries/tally.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { Instruction } from '../../gateway/protocol/instruction.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import {
  call,
  decision,
  endpoint,
  entriesOf,
  failingDisk,
  grant,
  inbound,
  leaseFacts,
  openTestLog,
  outcome,
  temporaryDir,
  testAudit,
  testClock,
  verifyStored,
} from './log.fixture.ts'

let dir: string
beforeEach(async () => {
  dir = await temporaryDir()
  return () => rm(dir, { recursive: true, force: true })
})

const denial = new GatewayError('policy_denied', 'This grant has "read"; the call needs "write".')
const opening = (): Instruction => ({
  kind: 'task.open',
  id: uuidv7(),
  tenant: 'default',
  human: { iss: 'local:workstation', sub: 'ana' },
  agent: 'spiffe://acme.test/agents/triage',
  purpose: 'triage',
  request: { scope: 'github:issues.read', ttlS: 900 },
})
const proposal = (of = grant()) =>
  ({ kind: 'task.open', grant: of, authority: of.authority, agent: of.agent, ttlS: 900 }) as const

/** A log that stores when it is told to. */
function heldLog() {
  const drafts: Draft[] = []
  const kept: Draft[] = []
  let settle = (_: Error | undefined): void => undefined
  return {
    drafts,
    kept,
    settle: (error?: Error) => settle(error),
    append(draft: Draft): Promise<number> {
      drafts.push(draft)
      return new Promise((resolve, reject) => {
        settle = (error) => (error ? reject(error) : resolve(7))
      })
    },
    enqueue: (draft: Draft) => void kept.push(draft),
  }
}
const paper = letterhead({
  node: 'gw-1',
  version: '0.1.0',
  boot: 'b',
  origin: 'o',
  hmacKey: createSecretKey(Buffer.alloc(32)),
})

const deskOf = (log: Desk['log']): Desk => ({
  paper,
  clock: testClock(),
  log,
  tally: new Tally(),
  ready: () => undefined,
})

describe('a call', () => {
  it('has a receipt only when its decision is stored', async () => {
    const log = heldLog()
    const event = new RecordedCall(deskOf(log), inbound())
    let receipt: unknown
    const committed = event.commit().then((made) => {
      receipt = made
    })
    await new Promise((resolve) => setImmediate(resolve))
    expect([receipt, log.drafts.length]).toEqual([undefined, 1])
    log.settle()
    await committed
    expect(receipt).toEqual({ event: event.id, seq: 7 })
  })

  it('writes its decision, then its outcome, each once, with the whole lineage', async () => {
    const log = await openTestLog(dir)
    const clock = testClock()
    const audit = testAudit(log, clock)
    const who = grant()
    const event = audit.openCall(inbound())
    expect(event.endpoint).toBeUndefined()
    const where = endpoint()
    expect(event.located(where)).toBe(where)
    expect(event.endpoint).toBe(where)
    expect(event.authenticated(who)).toBe(who)
    event.decided(decision())
    expect((await event.commit()).seq).toBe(1)
    const lease = { facts: leaseFacts() }
    expect(event.leased(lease)).toBe(lease)
    clock.ms += 132
    event.closed(outcome({ scrubbed: 2 }))
    event.closed(outcome({ status: 500 }))
    expect(await event.refused(denial)).toBe(denial)
    await audit.close()
    const [, decided, ended, sealed] = await entriesOf(dir)
    expect(decided).toMatchObject({
      kind: 'call.decision',
      req: event.id,
      human: { sub: 'ana' },
      lineage: who.lineage,
      task: who.task,
      decision: { effect: 'allow', policy_ids: ['github-read'] },
      target: {
        service: 'github',
        operation: 'github:issues.read',
        method: 'GET',
        host: 'api.github.com',
        path: '/repos/acme/site/issues',
      },
    })
    expect(ended).toMatchObject({
      kind: 'call.outcome',
      req: event.id,
      lineage: who.lineage,
      cred: { credential: 'github', ephemeral: false },
      outcome: { status: 200, bytes_in: 4123, dur_ms: 132, scrubbed: 2, error: null, address: '140.82.112.5' },
    })
    expect(sealed?.kind).toBe('log.sealed')
    expect(await verifyStored(dir)).toMatchObject({ ok: true, open_calls: 0 })
  })

  it('says before its outcome that its credential came back: which, where and how often, and what was done', async () => {
    const log = await openTestLog(dir)
    const audit = testAudit(log, testClock())
    const who = grant()
    const event = audit.openCall(inbound())
    event.located(endpoint())
    event.authenticated(who)
    event.decided(decision())
    await event.commit()
    event.leased({ facts: leaseFacts() })
    event.burnt('revoked')
    event.closed(outcome({ scrubbed: 3, leaks: { head: 1, body: 2 } }))
    await audit.close()
    const [, , leaked, ended] = await entriesOf(dir)
    expect(leaked).toMatchObject({
      kind: 'leak.detected',
      req: event.id,
      task: { id: who.task.id },
      human: { sub: 'ana' },
      facts: {
        service: 'github',
        operation: 'github:issues.read',
        grant: who.id,
        cred_id: leaseFacts().credentialId,
        count: 3,
        where: { head: 1, body: 2 },
        fate: 'revoked',
      },
    })
    expect(ended?.kind).toBe('call.outcome')
    expect(await verifyStored(dir)).toMatchObject({ ok: true, open_calls: 0 })
  })

  it('that is refused before its decision is recorded leaves one denied decision, durably', async () => {
    const log = await openTestLog(dir)
    const event = testAudit(log).openCall(inbound())
    event.located(endpoint())
    event.authenticated(grant())
    event.decided(decision({ effect: 'deny', code: 'policy_denied', policyIds: ['no-writes'] }))
    expect(await event.refused(denial)).toBe(denial)
    expect((await entriesOf(dir))[1]).toMatchObject({
      kind: 'call.decision',
      decision: { effect: 'deny', code: 'policy_denied', status: 403, policy_ids: ['no-writes'] },
    })
    expect(await event.refused(denial)).toBe(denial)
    event.closed(outcome())
    await log.close()
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: 3 })
  })

  it('that policy allowed and a later check refused is recorded as denied', async () => {
    const log = await openTestLog(dir)
    const event = testAudit(log).openCall(inbound())
    event.decided(decision())
    await event.refused(new GatewayError('use_spent', 'Used.'))
    await log.close()
    expect((await entriesOf(dir))[1]?.decision).toMatchObject({ effect: 'deny', code: 'use_spent' })
  })

  it('that is refused after its decision is recorded has an outcome that says so', async () => {
    const log = await openTestLog(dir)
    const event = testAudit(log).openCall(inbound())
    event.decided(decision())
    await event.commit()
    const refusal = new GatewayError('upstream_refused', 'No answer.', {
      cause: Object.assign(new Error('x'), { code: 'ECONNREFUSED' }),
    })
    expect(await event.refused(refusal)).toBe(refusal)
    event.closed(outcome())
    await log.close()
    expect((await entriesOf(dir))[2]).toMatchObject({
      kind: 'call.outcome',
      outcome: { error: 'upstream_refused', status: 502, cause: 'Error ECONNREFUSED' },
    })
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: 4 })
  })

  it('is answered that it cannot be recorded, whatever it was refused for', async () => {
    const disk = failingDisk()
    const log = await openTestLog(dir, { disk })
    const audit = testAudit(log)
    disk.fails = 'half'
    const event = audit.openCall(inbound())
    const cause = await event.commit().catch((error: GatewayError) => error)
    expect(cause).toMatchObject({ code: 'audit_unavailable' })
    expect(await event.refused(cause as GatewayError)).toBe(cause)
    expect(await audit.openCall(inbound()).refused(denial)).toMatchObject({ code: 'audit_unavailable' })
    expect(audit.failure).toBeDefined()
    disk.fails = undefined
    await call(audit)
    expect(audit.failure).toBeUndefined()
    await audit.close()
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: 5 })
  })

  it('cannot be closed before its decision is recorded', async () => {
    const event = new RecordedCall(deskOf(heldLog()), inbound())
    expect(() => event.closed(outcome())).toThrow('before its decision was recorded')
  })
})

describe('an instruction', () => {
  it('records the whole grant before it is issued', async () => {
    const log = await openTestLog(dir)
    const event = testAudit(log).openInstruction(opening())
    const made = grant()
    event.proposed(proposal(made))
    event.decided(decision())
    await event.commit()
    await log.close()
    expect((await entriesOf(dir))[1]).toMatchObject({
      kind: 'grant.issued',
      req: event.id,
      lineage: made.lineage,
      lineage_hash: made.lineageHash,
      task: made.task,
      decision: { effect: 'allow' },
      facts: { ttl_s: 900, heartbeat: false },
      grant: { id: made.id, agent: { id: made.agent.id, owner: 'ana', risk_tier: 'low' }, authority: made.authority },
    })
  })

  it('that ends a task records the grant as revoked, and why', async () => {
    const log = await openTestLog(dir)
    const by = { human: { iss: 'local:workstation', sub: 'ana' } }
    const event = testAudit(log).openInstruction({
      kind: 'task.complete',
      id: uuidv7(),
      tenant: 'default',
      by,
      task: 't',
      reason: 'crashed',
    })
    event.proposed({ kind: 'task.complete', grant: grant(), reason: 'crashed' })
    event.decided(decision())
    await event.commit()
    await log.close()
    expect((await entriesOf(dir))[1]).toMatchObject({ kind: 'grant.revoked', facts: { reason: 'crashed' } })
  })

  it('that is refused says what was asked, by whom', async () => {
    const log = await openTestLog(dir)
    const event = testAudit(log).openInstruction(opening())
    expect(await event.refused(new GatewayError('agent_unknown', 'No such agent.'))).toMatchObject({
      code: 'agent_unknown',
    })
    await log.close()
    expect((await entriesOf(dir))[1]).toMatchObject({
      kind: 'grant.denied',
      human: { sub: 'ana' },
      decision: { effect: 'deny', code: 'agent_unknown', status: 403 },
      facts: { instruction: 'task.open', scope: 'github:issues.read', purpose: 'triage' },
    })
  })

  it('that fails after it was recorded is recorded as failed', async () => {
    const log = await openTestLog(dir)
    const event = testAudit(log).openInstruction(opening())
    event.proposed(proposal())
    await event.commit()
    await event.refused(new GatewayError('store_unavailable', 'Redis is away.'))
    await log.close()
    expect((await entriesOf(dir))[2]).toMatchObject({
      kind: 'grant.failed',
      req: event.id,
      facts: { code: 'store_unavailable' },
    })
    expect(await verifyStored(dir)).toMatchObject({ ok: true })
  })

  it('has no receipt without a proposal', async () => {
    const event = new RecordedInstruction(deskOf(heldLog()), opening())
    await expect(event.commit()).rejects.toThrow('before it was proposed')
  })
})

it('records what the gateway does of itself', async () => {
  const log = await openTestLog(dir)
  const audit = testAudit(log)
  expect(
    await audit.record('policy.loaded', 'default', { policy_set: 'sha256:abc', services: ['github'] }),
  ).toMatchObject({ seq: 1 })
  expect(audit.size).toBe(2)
  await audit.close()
  expect((await entriesOf(dir))[1]).toMatchObject({
    kind: 'policy.loaded',
    tenant: 'default',
    facts: { policy_set: 'sha256:abc', services: ['github'] },
    gw: { node: 'gw-1' },
  })
})
