/** Incidents acted out before a real gateway and a real upstream: each verdict is the right one, and no other is raised. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadCatalogue } from '../../gateway/policy/catalogue/catalogue.ts'
import type { IssuedView } from '../../gateway/protocol/control.ts'
import type { Database } from '../../gateway/records/database.ts'
import type { Subject } from '../../gateway/records/inquiry.ts'
import { investigate } from '../../gateway/records/investigate.ts'
import { lineageOf } from '../../gateway/records/lineage-tree.ts'
import { type Vocabulary, vocabularyOf } from '../../gateway/records/reach.ts'
import { agentId, openScene, policies, READ, type Scene, WRITE } from './scene.fixture.ts'

const AGENTS = ['lead', 'child', 'broad', 'writer', 'careful', 'late']
const UNLISTED = 'permit (principal is Agent, action == Action::"demo:unlisted", resource);'

let scene: Scene
let database: Database
let vocabulary: Vocabulary
const grants: Record<string, IssuedView> = {}

beforeAll(async () => {
  scene = await openScene(AGENTS, policies(READ))
  grants.refused = await scene.open('writer', 'demo:notes.create')
  expect(await scene.call(grants.refused, 'POST', '/notes')).toBe('403 policy_denied')
  await scene.under(policies(READ, WRITE, UNLISTED))

  grants.writer = await scene.open('writer', 'demo:notes.create')
  expect(await scene.call(grants.writer, 'POST', '/notes')).toBe('201')

  grants.lead = await scene.open('lead', 'demo:notes.list')
  grants.child = await scene.delegate(grants.lead, 'child', 'demo:notes.list')
  await scene.call(grants.lead, 'GET', '/notes')
  await scene.call(grants.child, 'GET', '/notes')
  expect(await scene.call(grants.lead, 'GET', '/notes', '127.0.0.66')).toBe('200')

  grants.late = await scene.open('late', 'demo:notes.list')
  await scene.call(grants.late, 'GET', '/notes')
  await scene.gateway.control.revoke(grants.late.grant)
  expect(await scene.call(grants.late, 'GET', '/notes', '127.0.0.77')).toBe('401 grant_revoked')

  grants.broad = await scene.open('broad', 'demo:*')
  await scene.call(grants.broad, 'GET', '/notes')
  grants.careful = await scene.open('careful', 'demo:notes.list demo:notes.read')
  await scene.call(grants.careful, 'GET', '/notes')
  await scene.call(grants.careful, 'GET', '/notes/1')
  grants.unlisted = await scene.open('careful', 'demo:unlisted')
  await scene.call(grants.unlisted, 'GET', '/nowhere/at/all')

  const { services, shippedServicesDir: shippedDir, baseDir } = scene.gateway.settings
  vocabulary = vocabularyOf((await loadCatalogue({ services, shippedDir, baseDir })).services)
  database = await scene.index()
}, 60_000)

afterAll(async () => {
  await database?.close()
  await scene?.stop()
})

const id = (name: string) => grants[name]?.grant ?? ''

async function look(kind: Subject['kind'], of: string, words: Vocabulary | undefined = vocabulary) {
  const about = { nowMs: Date.now(), ...(words && { vocabulary: words }) }
  const found = await investigate(database, { subject: { kind, id: of }, span: {} }, about)
  if (found === undefined) throw new Error(`nothing is known of ${kind} ${of}`)
  return found
}

async function verdicts(kind: Subject['kind'], of: string) {
  const { verdicts: all } = await look(kind, of)
  return Object.fromEntries(all.map(({ question, answer }) => [question, answer]))
}

const CLEAN = { stolen_parent: 'no_sign', misconfiguration: 'no_sign', too_broad: 'no_sign' }

describe('an investigation', () => {
  it('raises nothing about a grant that was used as it was meant', async () => {
    expect(await verdicts('grant', id('careful'))).toEqual(CLEAN)
  })

  it('finds that a grant was stolen by its use from another address, asked about it or about its child', async () => {
    expect(await verdicts('grant', id('lead'))).toEqual({ ...CLEAN, stolen_parent: 'likely' })
    expect(await verdicts('grant', id('child'))).toEqual({ ...CLEAN, stolen_parent: 'likely' })
    const {
      verdicts: [stolen],
    } = await look('grant', id('child'))
    expect(stolen?.signs[0]?.what).toContain(`grant ${id('lead')}`)
    expect(stolen?.signs[0]?.what).toContain('127.0.0.66')
  })

  it('finds a use after the end from where the grant had never been used', async () => {
    expect(await verdicts('grant', id('late'))).toEqual({ ...CLEAN, stolen_parent: 'likely' })
    const { deeds } = await look('grant', id('late'))
    expect(deeds.refusals).toEqual([expect.objectContaining({ code: 'grant_revoked', calls: 1 })])
  })

  it('finds that policy had just begun to allow what it refused', async () => {
    expect(await verdicts('grant', id('writer'))).toEqual({ ...CLEAN, misconfiguration: 'likely' })
  })

  it('finds that calls were allowed which no service file describes', async () => {
    expect(await verdicts('grant', id('unlisted'))).toMatchObject({
      stolen_parent: 'no_sign',
      misconfiguration: 'likely',
    })
  })

  it('finds that far more was granted than used', async () => {
    expect(await verdicts('grant', id('broad'))).toEqual({ ...CLEAN, too_broad: 'likely' })
  })

  it('cannot tell of a grant that was refused everything and still lives', async () => {
    expect(await verdicts('grant', id('refused'))).toEqual({
      stolen_parent: 'no_sign',
      misconfiguration: 'unknown',
      too_broad: 'unknown',
    })
  })

  it('knows nothing of what never was', async () => {
    const about = { subject: { kind: 'agent', id: agentId('nobody') } as const, span: {} }
    expect(await investigate(database, about, { nowMs: Date.now() })).toBeUndefined()
  })

  it('says what could be reached, who granted it, and what else used the same credential', async () => {
    const found = await look('agent', agentId('child'))
    expect(found.reach.operations).toEqual([
      expect.objectContaining({ operation: 'demo:notes.list', hosts: ['api.keyless.test'], calls: 1 }),
    ])
    expect(found.grantors.map(({ from, to, attested_by }) => [from, to, attested_by])).toEqual([
      [found.grantors[0]?.from, agentId('lead'), 'human'],
      [agentId('lead'), agentId('child'), 'gateway'],
    ])
    expect(found.grantors[0]?.proof).toMatchObject({ iss: expect.stringMatching(/^local:/) })
    expect(found.policies[0]).toMatchObject({ effect: 'allow', policies: ['policy#rule-0'] })
    const lead = await look('grant', id('lead'))
    expect(lead.blast.descendants).toEqual([expect.objectContaining({ grant: id('child'), isLiving: true })])
  })

  it('follows a credential by its name through every grant that used it', async () => {
    const found = await look('credential', 'demo')
    expect(found.grants.read).toBeGreaterThanOrEqual(6)
    expect(found.deeds.allowed).toBe(9)
    expect(found.verdicts.map(({ answer }) => answer)).toEqual(['likely', 'likely', 'likely'])
  })

  it('tells what an agent had not done before', async () => {
    const { deeds } = await look('grant', id('unlisted'))
    expect(deeds.baseline).toBe(2)
    expect(deeds.unusual).toEqual([expect.objectContaining({ what: 'operation', value: 'demo:unlisted', calls: 1 })])
    const { deeds: first } = await look('grant', id('careful'))
    expect(first).toMatchObject({ baseline: 0, unusual: [] })
  })

  it('names entries that are in the log, each with a proof', async () => {
    const { prove } = await import('../../gateway/audit/verify/prove.ts')
    const { verdicts: all } = await look('credential', 'demo')
    const refs = all.flatMap(({ signs }) => signs.flatMap(({ entries }) => entries))
    expect(refs.length).toBeGreaterThan(5)
    for (const ref of new Set(refs)) {
      const seq = Number(/^keyless\.local\/default:(\d+)$/.exec(ref)?.[1])
      expect(await prove(scene.auditDir, seq)).toContain('tlog-proof')
    }
  })
})

describe('the lineage of a task', () => {
  it('is the same tree for a call, an entry, a grant, a task and an agent', async () => {
    const trees = await Promise.all(
      [id('lead'), id('child'), grants.lead?.task ?? '', agentId('lead')].map((of) =>
        lineageOf(database, of, Date.now()),
      ),
    )
    for (const tree of trees) expect(tree?.tasks.map(({ task }) => task)).toEqual([grants.lead?.task])
    const [root] = trees[0]?.tasks[0]?.roots ?? []
    expect(root).toMatchObject({ grant: { id: id('lead') }, end: null, isSought: true })
    expect(root?.calls).toEqual([expect.objectContaining({ operation: 'demo:notes.list', effect: 'allow', calls: 2 })])
    expect(root?.children).toEqual([expect.objectContaining({ isSought: false, children: [] })])
    const entry = root?.calls[0]?.first_entry ?? ''
    const call = await lineageOf(database, entry, Date.now())
    expect(call?.tasks).toEqual(trees[0]?.tasks)
    expect(call?.sentence).toMatch(/authorised spiffe:\/\/test\/agent\/lead for task .*: 200$/)
  })

  it('says why a grant ended', async () => {
    const tree = await lineageOf(database, id('late'), Date.now())
    expect(tree?.tasks[0]?.roots[0]?.end).toBe('revoked')
    const other = await lineageOf(database, id('careful'), Date.now() + 3_600_000)
    expect(other?.tasks[0]?.roots[0]?.end).toBe('expired')
  })

  it('is the sentence that the log itself tells', async () => {
    const [{ openReader }, { sentence }] = await Promise.all([
      import('../../gateway/audit/files/reader.ts'),
      import('../../gateway/audit/entries/lineage.ts'),
    ])
    const reader = await openReader(scene.auditDir)
    try {
      const rows = await database.all<{ req: string }>(`SELECT req FROM records WHERE kind = 'call'`)
      for (const { req } of rows) {
        const [decision, outcome] = await reader.byReq(req)
        if (decision === undefined) throw new Error(`the log has no call ${req}`)
        const told = sentence(decision, outcome, await reader.makers(decision))
        expect((await lineageOf(database, req, Date.now()))?.sentence).toBe(told)
      }
    } finally {
      await reader.close()
    }
  })
})
