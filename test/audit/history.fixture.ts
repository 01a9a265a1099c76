/** A history that a gateway could have had, written entry by entry with a clock that is moved by hand; and what a thief of its key could make of it. */
import { randomUUID } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import canonicalize from 'canonicalize'
import type { Audit } from '../../gateway/audit/audit.ts'
import { draftFrom } from '../../gateway/audit/canonical.ts'
import type { LeaseFacts } from '../../gateway/audit/entries/record.ts'
import { loadLogKey } from '../../gateway/audit/key.ts'
import type { LogOptions } from '../../gateway/audit/log.ts'
import { checkpointSigner } from '../../gateway/audit/tree/checkpoint.ts'
import { leafHash, treeRoot } from '../../gateway/audit/tree/merkle.ts'
import { childLineage, lineageHash } from '../../gateway/grant/chain/lineage.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { Proposal } from '../../gateway/protocol/instruction.ts'
import {
  decision,
  endpoint,
  grant,
  inbound,
  leaseFacts,
  linesOf,
  openTestLog,
  outcome,
  type TestClock,
  testAudit,
  testClock,
} from './log.fixture.ts'

export interface History {
  readonly clock: TestClock
  readonly audit: Audit
  /** A root grant for 900 s. */
  open(change?: Partial<Grant>): Promise<Grant>
  /** `parent` passes on what it has. */
  delegate(parent: Grant, change?: Partial<Grant>): Promise<Grant>
  /** A credential for 300 s. */
  lease(of: Grant, change?: Partial<LeaseFacts>): Promise<LeaseFacts>
  /** @returns its `req`. */
  call(of: Grant, lease: LeaseFacts): Promise<string>
  propose(proposal: Partial<Proposal> & Pick<Proposal, 'kind'>): Promise<void>
  end(of: Grant): Promise<void>
  /** A heartbeat that promises the next one in a minute. */
  beat(told: { readonly allowed: number; readonly open: number }): Promise<unknown>
  close(): Promise<void>
}

/** Opens the log in `dir`. @param change also `opened: { shared }`. */
export async function history(dir: string, change: Partial<LogOptions> & { clock?: TestClock } = {}): Promise<History> {
  const clock = change.clock ?? testClock()
  const log = await openTestLog(dir, { opened: { shared: false }, ...change, clock })
  const audit = testAudit(log, clock)
  const id = () => uuidv7(clock.nowMs())
  const propose: History['propose'] = async (proposal) => {
    const event = audit.openInstruction({
      kind: 'task.complete',
      id: id(),
      tenant: 'default',
      by: {},
      ...asked[proposal.kind],
    } as never)
    event.proposed(proposal as Proposal)
    event.decided(decision())
    await event.commit()
  }
  await audit.record('policy.loaded', 'default', {
    ...{ policies: 1, files: [], services: [] },
    policy_set: decision().policySet,
  })
  const beat = async (told: { readonly allowed: number; readonly open: number }, everyMs = 60_000) => {
    // What the log writes of itself names no run.
    const { gw } = JSON.parse((await linesOf(dir)).findLast((line) => line.includes('"gw":')) ?? '')
    const facts = { ...told, refused: 0, turned_away: {}, kept: 0, up_ms: 0, every_ms: everyMs }
    return log.append(draftFrom({ kind: 'log.heartbeat', gw, log: log.origin, facts }))
  }
  await beat({ allowed: 0, open: 0 }, 3_600_000)
  return {
    clock,
    audit,
    propose,
    async open(change = {}) {
      const nowS = Math.floor(clock.nowMs() / 1000)
      const root = withLineage(grant({ id: id(), issuedAt: nowS, expiresAt: nowS + 900, ...change }))
      await propose({ kind: 'task.open', grant: root, authority: root.authority, agent: root.agent, ttlS: 900 })
      return root
    },
    async delegate(parent, change = {}) {
      const own = change.id ?? id()
      const agent = { ...parent.agent, id: `${parent.agent.id}/child` }
      const lineage = childLineage(parent, agent.id, own, false)
      const drafted: Grant = {
        ...{ ...parent, id: own, agent, lineage, lineageHash: lineageHash(lineage), depth: parent.depth + 1 },
        ...{ ancestry: [...parent.ancestry, { id: parent.id, authority: parent.authority }], ...change },
      }
      const attestation = `attestation of ${own}`
      await propose({
        kind: 'grant.delegate',
        parent,
        grant: drafted,
        attestation,
        authority: drafted.authority,
        agent,
        ttlS: 900,
      })
      return { ...drafted, attestations: [...parent.attestations, attestation] }
    },
    async lease(of, change = {}) {
      const expiresAt = Math.min(of.expiresAt, Math.floor(clock.nowMs() / 1000) + 300)
      const lease = leaseFacts({ credentialId: `hmac:${randomUUID()}`, expiresAt, ...change })
      const { credentialId: cred_id, expiresAt: expires, provider, credential, ephemeral } = lease
      const facts = { cred_id, expires, provider, credential, ephemeral, grant: of.id, service: 'github', ms: 12 }
      await audit.recordUnder('lease.issued', of, { ...facts, cause: 'needed' })
      return lease
    },
    async call(of, lease) {
      const event = audit.openCall(inbound({ id: id() }))
      event.located(endpoint())
      event.authenticated(of)
      event.decided(decision())
      await event.commit()
      event.leased({ facts: lease })
      event.closed(outcome())
      return event.id
    },
    end: (of) => propose({ kind: 'grant.revoke', grant: of, reason: 'revoked' }),
    beat,
    close: () => audit.close(),
  }
}

/** What was asked for, by what is done. */
const asked: Partial<Record<Proposal['kind'], object>> = {
  'grant.delegate': { kind: 'grant.delegate', request: {} },
  'grant.revoke': { kind: 'grant.revoke', token: '' },
  'task.open': { kind: 'task.open', request: {} },
}

export function withLineage(made: Grant): Grant {
  const lineage = made.lineage.map((step) => (step.grant === undefined ? step : { ...step, grant: made.id }))
  return { ...made, lineage, lineageHash: lineageHash(lineage) }
}

/** Two tasks with a delegation, leases and calls, one of them revoked; ended as a gateway ends. */
export async function writeHistory(dir: string, change: Parameters<typeof history>[1] = {}): Promise<void> {
  const h = await history(dir, change)
  const root = await h.open()
  const lease = await h.lease(root)
  for (let i = 0; i < 3; i++) await h.call(root, lease)
  h.clock.ms += 1000
  const child = await h.delegate(root)
  const own = await h.lease(child)
  for (let i = 0; i < 2; i++) await h.call(child, own)
  await h.end(child)
  h.clock.ms += 60_000
  await h.call(root, lease)
  await h.propose({ kind: 'task.complete', grant: root, reason: 'completed' })
  await h.close()
}

/** What someone with the log's key could do: make head and helpers fit whatever the entries now say. */
export async function signAgain(dir: string, lines: readonly string[], origin: string): Promise<void> {
  const leaves = lines.map((line) => leafHash(Buffer.from(line)))
  const sign = checkpointSigner(origin, await loadLogKey(dir, origin))
  await writeFile(join(dir, 'entries.jsonl'), lines.map((line) => `${line}\n`).join(''))
  await writeFile(join(dir, 'leaves'), Buffer.concat(leaves))
  await writeFile(join(dir, 'checkpoint'), sign({ size: leaves.length, root: treeRoot(leaves) }))
}

export function renumber(lines: readonly string[]): string[] {
  return lines.map((line, seq) => canonicalize({ ...JSON.parse(line), seq }) ?? '')
}

/** The lines without those that `isDropped`, numbered anew and signed again. */
export async function dropAndSign(
  dir: string,
  origin: string,
  isDropped: (entry: { kind: string; req?: string }) => boolean,
): Promise<void> {
  const lines = (await linesOf(dir)).filter((line) => !isDropped(JSON.parse(line)))
  await signAgain(dir, renumber(lines), origin)
}
