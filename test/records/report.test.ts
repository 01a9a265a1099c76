/** Reports on what really happened before a gateway, and what they say when nothing did. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadCatalogue } from '../../gateway/policy/catalogue/catalogue.ts'
import { loadBundle } from '../../gateway/policy/source/bundle.ts'
import type { IssuedView } from '../../gateway/protocol/control.ts'
import type { Database } from '../../gateway/records/database.ts'
import { openSqlite } from '../../gateway/records/database-sqlite.ts'
import { investigate } from '../../gateway/records/investigate.ts'
import { lineageOf } from '../../gateway/records/lineage-tree.ts'
import { type Vocabulary, vocabularyOf } from '../../gateway/records/reach.ts'
import { checklist } from '../../gateway/records/report-checklist.ts'
import { evidence } from '../../gateway/records/report-evidence.ts'
import { exposure } from '../../gateway/records/report-exposure.ts'
import { inventory } from '../../gateway/records/report-inventory.ts'
import { leastPrivilege } from '../../gateway/records/report-least-privilege.ts'
import { slo } from '../../gateway/records/report-slo.ts'
import { startPostgres } from '../rig/postgres.ts'
import { agentId, openScene, policies, READ, type Scene, WRITE } from './scene.fixture.ts'

let scene: Scene
let database: Database
let empty: Database
let vocabulary: Vocabulary
let reader: IssuedView
let shared: IssuedView

beforeAll(async () => {
  scene = await openScene(['reader', 'shared', 'idle', 'boss'], policies(READ, WRITE))
  reader = await scene.open('reader', 'demo:notes.*')
  for (const path of ['/notes', '/notes/1', '/notes/1']) await scene.call(reader, 'GET', path)
  await scene.call(reader, 'DELETE', '/notes/1')
  shared = await scene.open('shared', 'demo:notes.list')
  for (const from of ['127.0.0.1', '127.0.0.9']) await scene.call(shared, 'GET', '/notes', from)
  const idle = await scene.open('idle', 'demo:*')
  const boss = await scene.open('boss', 'demo:notes.list')
  await scene.call(await scene.delegate(boss, 'reader', 'demo:notes.list'), 'GET', '/notes')
  for (const { grant } of [idle, shared]) await scene.gateway.control.revoke(grant)
  const { services, shippedServicesDir: shippedDir, baseDir } = scene.gateway.settings
  vocabulary = vocabularyOf((await loadCatalogue({ services, shippedDir, baseDir })).services)
  database = await scene.index()
  empty = openSqlite(join(scene.dir, 'empty.sqlite'))
}, 60_000)

afterAll(async () => {
  await Promise.all([database?.close(), empty?.close()])
  await scene?.stop()
})

const now = () => Date.now() + 1000

describe('report inventory', () => {
  it('ranks agents and credentials by privilege and life, and flags what auditors flag', async () => {
    const { identities, humans, flags } = await inventory(database, {}, { vocabulary, nowMs: now() })
    expect(humans).toBe(1)
    expect(identities.map(({ id }) => id).toSorted()).toEqual(
      ['boss', 'idle', 'reader', 'shared'].map(agentId).concat('demo').sort(),
    )
    const risks = identities.map(({ risk }) => risk ?? Number.POSITIVE_INFINITY)
    expect(risks).toEqual(risks.toSorted((a, b) => b - a))
    const of = (name: string) => identities.find(({ id }) => id === agentId(name))
    expect(of('idle')).toMatchObject({ calls: 0, last_use: null, unused_grants: 1, shared_grants: [], owner: 'ana' })
    expect(of('shared')).toMatchObject({ privilege: 1, lifetime_s: 900, calls: 2, shared_grants: [shared.grant] })
    expect(of('boss')).toMatchObject({ unused_grants: 0 })
    expect(identities.find(({ kind }) => kind === 'credential')).toMatchObject({
      id: 'demo',
      ephemeral: true,
      calls: 6,
    })
    expect(flags).toEqual({
      static_credentials: 0,
      unowned_agents: 0,
      agents_with_shared_grants: 1,
      agents_with_unused_grants: 1,
    })
  })
})

describe('report exposure', () => {
  it('tells lives and uses of credentials as the leases say', async () => {
    const leases = await database.all<{ life: number }>('SELECT (expires - issued) / 1000.0 AS life FROM leases')
    const report = await exposure(database, {})
    expect(report.issued).toBe(leases.length)
    expect(report.median_s).toBeGreaterThan(0)
    expect(report.factor).toBe(Math.round(7_776_000 / (report.median_s ?? 1)))
    expect(report.valid_s).toBeLessThanOrEqual(leases.reduce((sum, { life }) => sum + life, 0) + 0.001)
    expect(report.used_s).toBeGreaterThan(0)
    expect(report.used_s).toBeLessThan(report.valid_s)
    expect(report.weeks).toEqual([expect.objectContaining({ issued: leases.length, leaks: 0 })])
    expect(report).toMatchObject({ static_credentials: [], leaks: { detected: 0, foreign: 0 } })
  })
})

describe('report slo', () => {
  it('counts no call after the end of its grant that got no credential any more', async () => {
    const of = openSqlite(join(scene.dir, 'late.sqlite'))
    await of.transaction(async ({ run }) => {
      await run(
        `INSERT INTO grants (id, log, seq, kind, authority, issued, expires, ended, ended_by)
         VALUES ('g', 'one', 1, 'grant.issued', '[]', 0, 900000, 1000, 'one:2')`,
      )
      // As another replica leaves them that hears of the end a moment later: stopped; served; cut after it was served.
      for (const [n, [error, credential]] of [
        ['grant_revoked', null],
        [null, 'c'],
        ['grant_revoked', 'c'],
      ].entries())
        await run(
          `INSERT INTO records (log, seq, end_seq, ts, kind, effect, grant_id, error, cred_id)
           VALUES ('two', ?, ?, ?, 'call', 'allow', 'g', ?, ?)`,
          [2 * n, 2 * n + 1, 1500 - 100 * n, error ?? null, credential ?? null],
        )
    })
    expect((await slo(of, {})).revocation).toMatchObject({ revocations: 1, late_calls: 2, slowest: { ms: 400 } })
    await of.close()
  })

  it('measures issuance, revocation and decisions', async () => {
    const { issuance, revocation, decisions } = await slo(database, {})
    const [row] = await database.all<{ leases: number; slowest: number }>(
      'SELECT COUNT(*) AS leases, MAX(issue_ms) AS slowest FROM leases',
    )
    expect(issuance).toMatchObject({ issued: row?.leases, p99_ms: row?.slowest, isMet: (row?.slowest ?? 0) <= 100 })
    expect(revocation).toMatchObject({ revocations: 2, late_calls: 0, isMet: true })
    expect(decisions).toMatchObject({ calls: 7, failed: 0, unrecorded: 0, availability: 1 })
  })
})

describe('report evidence', () => {
  it('counts entries that are there, proves them, and says where there are none', async () => {
    const { prove } = await import('../../gateway/audit/verify/prove.ts')
    const prover = (entry: string) => prove(scene.auditDir, Number(entry.slice(entry.lastIndexOf(':') + 1)))
    const report = await evidence(database, {}, { framework: 'pci', nowMs: now(), prove: prover })
    expect(report.note).toContain('have an auditor confirm')
    const of = (name: string) => report.controls.find(({ control }) => control.includes(name))
    expect(of('Least privilege')).toMatchObject({ isGap: false, references: ['7.2.1', '7.2.2', '7.2.5'] })
    for (const gap of ['Approval', 'Emergency access', 'Synchronised time'])
      expect(of(gap)).toMatchObject({ isGap: true, shown: [] })
    const samples = report.controls.flatMap(({ shown }) => shown.flatMap((one) => one.samples))
    expect(samples.length).toBeGreaterThan(10)
    for (const { proof } of samples) expect(proof).toContain('c2sp.org/tlog-proof@v1')
    for (const { shown } of report.controls) for (const one of shown) expect(one.entries).toBeGreaterThan(0)
  })

  it.each([
    ['soc2', 14],
    ['pci', 14],
    ['iso27001', 14],
    ['owasp-agentic', 12],
    ['owasp-nhi', 12],
    ['atlas', 11],
    ['nist-ai-rmf', 13],
    ['maestro', 13],
  ] as const)('names what %s speaks of, and leaves out the rest', async (framework, count) => {
    const { controls } = await evidence(empty, {}, { framework, nowMs: now() })
    expect(controls).toHaveLength(count)
    for (const one of controls) {
      expect(one.references.length, one.control).toBeGreaterThan(0)
      expect(one.isGap, one.control).toBe(true)
    }
  })
})

describe('report least-privilege', () => {
  it('holds used against granted operations, what was passed on included', async () => {
    const { agents } = await leastPrivilege(database, {}, vocabulary)
    const of = (name: string) => agents.find(({ agent }) => agent === agentId(name))
    expect(of('reader')).toMatchObject({
      granted: ['demo:notes.create', 'demo:notes.delete', 'demo:notes.list', 'demo:notes.read'],
      unused: ['demo:notes.create', 'demo:notes.delete'],
      scope: 'demo:notes.list demo:notes.read',
    })
    expect(of('boss')).toMatchObject({ used: [], passed_on: ['demo:notes.list'], unused: [], excess: 0, policy: null })
    expect(of('idle')).toMatchObject({ excess: 1, scope: '', policy: null })
  })

  it('proposes a policy that the gateway then enforces', async () => {
    const { agents } = await leastPrivilege(database, {}, vocabulary)
    const text = agents.flatMap(({ policy }) => policy ?? []).join('\n')
    const { services, shippedServicesDir: shippedDir, baseDir } = scene.gateway.settings
    const catalogue = await loadCatalogue({ services, shippedDir, baseDir })
    const file = join(scene.dir, 'narrow.cedar')
    await writeFile(file, text)
    const { policies: read } = await loadBundle({ paths: [file], catalogue })
    expect(read.map(({ owner }) => owner)).toEqual(['ana', 'ana'])
    await scene.under(`${policies(READ, WRITE)}\n${text}`)
    const again = await scene.open('reader', 'demo:notes.*')
    expect(await scene.call(again, 'GET', '/notes')).toBe('200')
    expect(await scene.call(again, 'POST', '/notes')).toBe('403 policy_denied')
    const other = await scene.open('idle', 'demo:notes.*')
    expect(await scene.call(other, 'POST', '/notes')).toBe('201')
  })
})

describe('report checklist', () => {
  it('answers from settings and log, and takes nothing for granted', async () => {
    const { points } = await checklist(database, {}, { settings: scene.gateway.settings, nowMs: now() })
    const of = (text: string) => points.find(({ point }) => point.includes(text))?.state
    expect(of('no static key is configured')).toBe('yes')
    expect(of('Agents prove who they are')).toBe('no')
    expect(of('No grant is shared')).toBe('no')
    expect(of('Others witness the log')).toBe('no')
    expect(of('Revocation was used')).toBe('yes')
    expect(of('Playbooks')).toBe('unknown')
    const bare = await checklist(database, {}, { settings: undefined, nowMs: now() })
    expect(bare.points.find(({ point }) => point.includes('no static key is configured'))?.state).toBe('unknown')
  })
})

describe('of an empty log', () => {
  it('every report says that there is nothing, and invents nothing', async () => {
    expect(await inventory(empty, {}, { vocabulary, nowMs: now() })).toMatchObject({ identities: [], humans: 0 })
    expect(await exposure(empty, {})).toMatchObject({ issued: 0, median_s: null, factor: null, valid_s: 0, weeks: [] })
    expect(await slo(empty, {})).toMatchObject({
      issuance: { issued: 0, p99_ms: null, isMet: null },
      revocation: { revocations: 0, mean_ms: null, slowest: null, isMet: null },
      decisions: { calls: 0, availability: null },
    })
    expect(await leastPrivilege(empty, {}, vocabulary)).toMatchObject({ agents: [] })
    const { points } = await checklist(empty, {}, { settings: undefined, nowMs: now() })
    expect(points.filter(({ state }) => state === 'yes').map(({ point }) => point)).toEqual([
      'The clock was not set back',
    ])
  })
})

describe('in Postgres', () => {
  it('every report and investigation says the same as from SQLite', { timeout: 60_000 }, async () => {
    const postgres = await startPostgres()
    const common = await scene.index({ url: await postgres.fresh() })
    const alone = await scene.index()
    try {
      const nowMs = now()
      expect(await everything(common, nowMs)).toEqual(await everything(alone, nowMs))
    } finally {
      await Promise.all([common.close(), alone.close()])
      await postgres.stop()
    }
  })
})

async function everything(of: Database, nowMs: number) {
  const span = { since: 1, until: nowMs }
  const about = { nowMs, vocabulary }
  return [
    await investigate(of, { subject: { kind: 'agent', id: agentId('reader') }, span }, about),
    await investigate(of, { subject: { kind: 'credential', id: 'demo' }, span }, about),
    await investigate(of, { subject: { kind: 'grant', id: shared.grant }, span: {} }, about),
    await lineageOf(of, agentId('boss'), nowMs),
    await inventory(of, span, { vocabulary, nowMs }),
    await exposure(of, span),
    await slo(of, span),
    await evidence(of, span, { framework: 'soc2', nowMs }),
    await leastPrivilege(of, span, vocabulary),
    await checklist(of, span, { settings: undefined, nowMs }),
  ]
}
