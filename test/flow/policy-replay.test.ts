/**
 * Policies are held against what a real gateway wrote down: replay says which decisions would change and which cannot be told, explain
 * says why one of them came about, and what suggest prints leaves an agent what it did, and nothing else.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { codeOf, reverse } from '../invariant/agent.fixture.ts'
import { entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { keylessPolicy } from '../policy/command.fixture.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'

const SHIPPED = new URL('../../policies/defaults.cedar', import.meta.url).pathname
const OPERATIONS = {
  'notes.read': { match: ['GET /echo/{owner}/{note}'], access: 'read' },
  'notes.search': { match: ['GET /echo?kind=note'], access: 'read' },
  'notes.write': { match: ['POST /echo/{owner}'], access: 'write', sensitivity: 'confidential' },
} as never
const GRANTS = `@id("grants") @owner("test") permit (principal, action in [Action::"mint", Action::"delegate"], resource);\n`

let echo: EchoUpstream
let site: OpenSite
let config: string

const open = (policies?: { readonly text: string }) =>
  openSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [{ name: 'notes', operations: OPERATIONS }],
      credentials: { notes: 'a-standing-key' },
      ...(policies && { policies }),
    },
  )

const call = (at: OpenSite, handle: string, request: string) => {
  const [method = '', path = ''] = request.split(' ')
  return reverse(at.gateway.proxyPort, handle, { method, path: `/notes${path}` })
}

async function candidate(text: string): Promise<string> {
  const file = join(site.gateway.dir, 'candidate.cedar')
  await writeFile(file, text)
  return file
}

beforeAll(async () => {
  echo = await startEcho({ names: ['notes.keyless.test'] })
  site = await open()
  const { control, dir, settings } = site.gateway
  config = join(dir, 'keyless.yaml')
  const task = await control.openTask({ scope: 'notes:*', purpose: 'read notes' })
  for (const request of ['GET /echo/acme/1', 'GET /echo/acme/2', 'GET /echo?kind=note', 'POST /echo/acme'])
    expect((await call(site, task.handle, request)).status).toBe(200)
  expect(codeOf(await call(site, task.handle, 'DELETE /echo/acme'))).toBe('policy_denied')
  const child = await control.delegate({ parent: task.grant, agent: task.agent, scope: 'notes:notes.read' })
  expect((await call(site, child.handle ?? '', 'GET /echo/acme/1')).status).toBe(200)
  expect(codeOf(await call(site, child.handle ?? '', 'POST /echo/acme'))).toBe('scope_exceeded')
  await entriesOf(settings.dataDir)
}, 60_000)

afterAll(async () => {
  await site?.stop()
  await echo?.stop()
})

describe('replay, while the gateway runs', () => {
  it('changes nothing under the policies that decided', async () => {
    const { code, stdout, stderr } = await keylessPolicy('replay', SHIPPED, '-c', config, '--unchanged')
    expect(stderr).toBe('')
    expect(stdout).toBe(
      '8 decisions: 8 as before, 0 would change, 0 cannot be told\n1 request refused before policy was asked\n',
    )
    expect(code).toBe(0)
  })

  it('tells every decision that would change, grouped, with the policies on both sides', async () => {
    const file = await candidate(
      `${GRANTS}@id("brief") @owner("test") @ttl("60") permit (principal, action in Action::"read", resource is Endpoint)
       when { context.lineage_depth == 0 };`,
    )
    const { code, stdout } = await keylessPolicy('replay', file, '-c', config, '--json', '--unchanged')
    const { changed, unknown, ...counts } = JSON.parse(stdout)
    expect(counts).toEqual({ decisions: 8, same: 3, before: 1 })
    expect(unknown).toEqual([])
    const told = changed.map(({ asked, from, to, count, was, would, obligations }: Record<string, unknown>) => ({
      ...{ asked, from, to, count, was, would, obligations },
    }))
    const was = ['policies/defaults#read-and-write']
    const ttl = { ttl_s: [null, 60] }
    expect(told).toHaveLength(4)
    expect(told).toEqual(
      expect.arrayContaining([
        {
          asked: 'notes:notes.read',
          from: 'allow',
          to: 'allow',
          count: 2,
          was,
          would: ['candidate#brief'],
          obligations: ttl,
        },
        {
          asked: 'notes:notes.search',
          from: 'allow',
          to: 'allow',
          count: 1,
          was,
          would: ['candidate#brief'],
          obligations: ttl,
        },
        { asked: 'notes:notes.write', from: 'allow', to: 'deny', count: 1, was, would: [], obligations: {} },
        { asked: 'notes:notes.read', from: 'allow', to: 'deny', count: 1, was, would: [], obligations: {} },
      ]),
    )
    expect(code).toBe(1)
  })

  it('says what cannot be told, and does not guess it', async () => {
    const file = await candidate(
      `${GRANTS}@id("params") @owner("test") permit (principal, action in [Action::"read", Action::"write"], resource is Endpoint)
       when { !context.past_services.contains("mail") && context.method != "DELETE" };
       @id("owner") @owner("test") forbid (principal, action, resource is Endpoint)
       when { resource.hasTag("owner") && resource.getTag("owner") == "other" };`,
    )
    const { stdout } = await keylessPolicy('replay', file, '-c', config)
    expect(stdout).toMatch(/^8 decisions: 3 as before, 0 would change, 5 cannot be told\n/)
    expect(stdout).toContain('cannot be told: it depends on context.past_services\n  3 times: ')
  })

  it('can tell what depends on labels of agents and on whether it was an emergency', async () => {
    const file = await candidate(
      `${GRANTS}@id("ordinary") @owner("test") permit (principal, action in [Action::"read", Action::"write"], resource is Endpoint)
       when { !context.break_glass && !principal.labels.contains("finance") };`,
    )
    const { stdout } = await keylessPolicy('replay', file, '-c', config)
    expect(stdout).toMatch(/^8 decisions: 8 as before, 0 would change, 0 cannot be told\n/)
  })

  it('looks at no more than the time that it is asked about', async () => {
    const { stdout } = await keylessPolicy('replay', SHIPPED, '-c', config, '--until', '2020-01-01')
    expect(stdout).toBe('0 decisions: 0 as before, 0 would change, 0 cannot be told\n')
  })

  it('reads nothing where there is no log', async () => {
    await expect(keylessPolicy('replay', SHIPPED, '-c', config, '--data', '/nowhere')).rejects.toThrow(
      'there is no log in /nowhere/audit',
    )
  })
})

it('explains a decision of the log by its id, from what the log holds', async () => {
  const entries = await entriesOf(site.gateway.settings.dataDir)
  const written = entries.find(({ target }) => target?.operation === 'notes:notes.write' && target.method === 'POST')
  const file = await candidate(
    `@id("own") @owner("test") permit (principal, action in Action::"write", resource is Endpoint)
     when { resource.sensitivity == "confidential" && context.human_amr.contains("mfa") };`,
  )
  const asked = [written?.req ?? '', '-c', config, '--policies', file]
  const { stdout } = await keylessPolicy('explain', ...asked)
  expect(stdout).toContain('notes:notes.write by ')
  expect(stdout).toContain(`in the log (${written?.seq}, ${written?.ts}): allow by policies/defaults#read-and-write`)
  expect(stdout).toContain('does not apply: permit candidate#own (candidate.cedar:1, owner test)')
  expect(stdout).toContain('does not hold: context.human_amr.contains("mfa")   context.human_amr is []')
  expect(stdout).toContain('would be allowed if:\n    - context.human_amr were ["mfa"] (is [])\n')
  await expect(keylessPolicy('explain', '-c', config, '999999')).rejects.toThrow('the log has no decision 999999')
})

it('suggests policies under which an agent does what it did, and nothing else', { timeout: 30_000 }, async () => {
  const suggested = await keylessPolicy('suggest', '-c', config)
  expect(suggested.stderr).toBe(
    'keyless: with the policies in force, of 6 recorded calls 6 are decided as they were, 0 otherwise, 0 cannot be told\n',
  )
  expect(suggested.code).toBe(0)
  expect(suggested.stdout).toContain('// Scope to ask for: notes:notes.read notes:notes.search notes:notes.write\n')
  const file = await candidate(suggested.stdout)
  const checked = await keylessPolicy('check', '-c', config, '--policies', SHIPPED, file)
  expect(checked, suggested.stdout).toMatchObject({ code: 0, stderr: '' })
  const replayed = await keylessPolicy('replay', SHIPPED, file, '-c', config, '--unchanged')
  expect(replayed).toMatchObject({ code: 0, stdout: expect.stringContaining('8 decisions: 8 as before') })

  const narrowed = await open({ text: await readFile(file, 'utf8') })
  try {
    const { handle } = await narrowed.gateway.openTask('notes:*')
    for (const request of ['GET /echo/acme/1', 'GET /echo/acme/2', 'GET /echo?kind=note', 'POST /echo/acme'])
      expect((await call(narrowed, handle, request)).status, request).toBe(200)
    for (const request of ['GET /echo/acme/3', 'GET /echo/other/1', 'POST /echo/other'])
      expect(codeOf(await call(narrowed, handle, request)), request).toBe('policy_denied')
  } finally {
    await narrowed.stop()
  }
})
