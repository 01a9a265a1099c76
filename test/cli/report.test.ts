/** `keyless report`, `keyless log investigate` and `keyless log lineage`, as they print what the log of a real gateway says. */
import { join } from 'node:path'
import type { Command } from 'commander'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { printLineage } from '../../gateway/cli/log/lineage.ts'
import { logCommand } from '../../gateway/cli/log/log.ts'
import { reportCommand } from '../../gateway/cli/report.ts'
import type { IssuedView } from '../../gateway/protocol/control.ts'
import { agentId, openScene, policies, READ, type Scene } from '../records/scene.fixture.ts'

let scene: Scene
let grant: IssuedView
let where: string[]

beforeAll(async () => {
  scene = await openScene(['reader'], policies(READ))
  grant = await scene.open('reader', 'demo:*')
  await scene.call(grant, 'GET', '/notes')
  await scene.call(grant, 'GET', '/notes', '127.0.0.5')
  await scene.gateway.control.revoke(grant.grant)
  await (await scene.index()).close() // until the log has all of it
  where = ['--audit-dir', scene.auditDir, '--index', join(scene.dir, 'cli.sqlite')]
}, 60_000)

afterAll(() => scene?.stop())

async function printed(work: () => Promise<unknown>): Promise<string> {
  const written: string[] = []
  const spy = vi.spyOn(process.stdout, 'write').mockImplementation((text) => written.push(String(text)) > 0)
  try {
    await work()
    return written.join('')
  } finally {
    spy.mockRestore()
    process.stdout.removeAllListeners('error')
  }
}

const run = (command: Command, ...args: string[]) =>
  printed(() => command.parseAsync([...args, ...where, '--config', scene.settingsFile()], { from: 'user' }))

describe('keyless report', () => {
  it.each<[string, string, RegExp]>([
    [
      'inventory',
      '',
      /1 agent for 1 human and 1 upstream credential[\s\S]*agent\/reader +agent +privilege \d+ +15 min/,
    ],
    ['inventory', '--csv', /^kind,id,owner,[\s\S]*\r\nagent,spiffe:\/\/test\/agent\/reader,ana,low,/],
    ['exposure', '', /times shorter than keys that are changed every 90 days/],
    ['slo', '', /Revocation: mean within 5 min {2}MET\n {2}1 end of grants/],
    ['evidence', '--framework=owasp-agentic', /OWASP Top 10 for Agentic[\s\S]*ASI09/],
    ['evidence', '--framework=iso27001', /ISO 27001:2022 Annex A, from \d+ records[\s\S]*GAP {2}Emergency access/],
    ['least-privilege', '', /ask for --scope "demo:notes\.list"\n {2}or add this policy:\n\n@id/],
    [
      'least-privilege',
      '--policies',
      /^@id\("only-what-was-used-test-agent-reader-[0-9a-f]{6}"\)\n@owner\("ana"\)\nforbid/,
    ],
    ['checklist', '', /NO {4}No grant is shared between instances\n[\s\S]*\d+ of \d+ hold/],
  ])('%s %s', async (name, option, expected) => {
    const args = option === '' ? [name] : [name, option]
    expect(await run(reportCommand(), ...args)).toMatch(expected)
  })

  it('prints every report as JSON, evidence with proofs', async () => {
    for (const name of ['inventory', 'exposure', 'slo', 'least-privilege', 'checklist'])
      expect(JSON.parse(await run(reportCommand(), name, '--json'))).toHaveProperty('span')
    const report = JSON.parse(await run(reportCommand(), 'evidence', '--framework', 'soc2', '--json'))
    expect(JSON.stringify(report)).toContain('c2sp.org/tlog-proof@v1')
  })

  it('looks at the time it is told, and no other', async () => {
    expect(await run(reportCommand(), 'inventory', '--until', '2020-01-01')).toContain('No grant and no credential')
    await expect(run(reportCommand(), 'inventory', '--since', 'yesterday')).rejects.toThrow('allowed is a time such as')
  })

  it('says which file to name when the index cannot be kept where it is looked for', async () => {
    where[3] = join(scene.dir, 'missing', 'index.sqlite')
    await expect(run(reportCommand(), 'slo')).rejects.toThrow('Name a file for another one with --index')
    where[3] = join(scene.dir, 'cli.sqlite')
  })
})

const log = () => logCommand(() => Promise.reject(new Error('nobody is to be forgotten')))

describe('keyless log investigate', () => {
  it('begins with the verdicts and names their entries', async () => {
    const text = await run(log(), 'investigate', '--grant', grant.grant)
    expect(text).toMatch(
      /Was it stolen, or a grant above it\? {2}LIKELY\n {4}! grant .* from 127\.0\.0\.5; .* \[keyless\.local/,
    )
    for (const section of [
      'WHAT IT COULD REACH',
      'WHAT IT DID',
      'WHO GRANTED IT',
      'UNDER WHICH POLICY',
      'WHAT ELSE IS',
    ])
      expect(text).toContain(section)
    const json = JSON.parse(await run(log(), 'investigate', '--agent', agentId('reader'), '--json'))
    expect(json.verdicts).toHaveLength(3)
  })

  it('says what to name', async () => {
    await expect(run(log(), 'investigate')).rejects.toThrow('Name one of --credential, --grant, --agent, --task')
    await expect(run(log(), 'investigate', '--task', 'none')).rejects.toThrow('the log knows no task "none"')
    const both = run(log(), 'investigate', '--task', 'a', '--grant', 'b')
    await expect(both).rejects.toThrow('several things are named')
  })
})

describe('keyless log lineage', () => {
  it('prints the tree of what came of a task', async () => {
    const options = { auditDir: scene.auditDir, index: where[3] }
    const text = await printed(() => printLineage(grant.task, options))
    expect(text).toMatch(
      /^task task_\S+ “the task of reader”\nhuman \S+ \(local:\S+\)\n└─ spiffe:\/\/test\/agent\/reader\n/,
    )
    expect(text).toMatch(/demo:notes\.list at api\.keyless\.test: 2 calls allowed/)
    expect(text).toMatch(/revoked \d{4}-/)
    await expect(printLineage('nothing', options)).rejects.toThrow('the log knows nothing under "nothing"')
  })
})
