/** A candidate in shadow: it decides nothing, and where it would have decided otherwise is in the log and counted. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { codeOf, reverse } from '../invariant/agent.fixture.ts'
import { entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { ALLOW_ALL, NO_POSTS } from './policy.fixture.ts'

let echo: EchoUpstream
let site: OpenSite

beforeAll(async () => {
  echo = await startEcho()
  const operations = {
    get: { match: ['GET /{mood}'], access: 'read' },
    post: { match: ['POST /{mood}'], access: 'write' },
  } as never
  site = await openSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [{ name: 'echo', operations }],
      credentials: { echo: 'a-standing-key-of-some-length' },
      policies: { text: ALLOW_ALL, only: true },
    },
  )
})

afterAll(async () => {
  await site.stop()
  await echo.stop()
})

/** As `policy.shadow` of the settings, in a file that is read again. */
async function shadowed(text: string, more: object = {}) {
  const { dir, control } = site.gateway
  const file = join(dir, 'keyless.yaml')
  const yaml = (await readFile(file, 'utf8')).replace(/^policy:[\s\S]*/m, '')
  await writeFile(join(dir, 'candidate.cedar'), text)
  await writeFile(file, yaml + stringify({ policy: { shadow: { policies: ['./candidate.cedar'], ...more } } }))
  return control.reloadPolicy()
}

const differences = async () =>
  (await entriesOf(site.gateway.settings.dataDir)).filter(({ kind }) => kind === 'policy.shadow_differed')

it('answers as before, and writes down once what the candidate would have refused', async () => {
  const { control, proxyPort } = site.gateway
  expect((await shadowed(NO_POSTS)).shadow).toMatchObject({ policies: 2, differed: 0 })
  const { handle, task } = await site.gateway.openTask('echo:*')
  const ask = (method: string) => reverse(proxyPort, handle, { method, path: '/echo/echo' })
  for (let n = 0; n < 5; n++) expect((await ask('POST')).status).toBe(200)
  expect((await ask('GET')).status).toBe(200)
  await expect.poll(async () => (await control.policy()).shadow).toMatchObject({ differed: 5, same: 2, skipped: 0 })

  await expect.poll(async () => (await differences()).length).toBe(1)
  const [entry] = await differences()
  expect(entry).toMatchObject({ task: { id: task }, human: {}, lineage: [{}, {}] })
  expect(entry?.facts).toMatchObject({
    ...{ about: 'echo:post', count: 1, effect: 'allow', candidate_effect: 'deny', candidate_code: 'policy_denied' },
    policy_ids: ['test#all'],
    candidate_policy_ids: ['candidate#no-posts'],
  })
  const metrics = await fetch(`${site.gateway.gateway.control}/metrics`).then((answer) => answer.text())
  expect(metrics).toContain('keyless_policy_shadow_total{result="differed"} 5')
})

it('compares obligations and instructions too', async () => {
  await shadowed(
    `@id("all") @owner("tests") @ttl("60") permit (principal, action, resource);\n@id("m") @owner("tests") forbid (principal, action == Action::"mint", resource);`,
  )
  const { handle } = await site.gateway.openTask('echo:get')
  expect((await reverse(site.gateway.proxyPort, handle, { path: '/echo/echo' })).status).toBe(200)
  await expect
    .poll(async () => (await differences()).slice(1).map(({ facts }) => facts))
    .toMatchObject([
      { about: 'task.open', effect: 'allow', candidate_effect: 'deny' },
      { about: 'echo:get', effect: 'allow', candidate_effect: 'allow', obligations: ['ttlS'] },
    ])
})

it('says what is wrong with a candidate, and goes on without it', async () => {
  const { shadow } = await shadowed('permit (principal')
  expect(shadow?.trouble).toMatch(/candidate\.cedar:1/)
  const { handle } = await site.gateway.openTask('echo:*')
  expect((await reverse(site.gateway.proxyPort, handle, { path: '/echo/echo' })).status).toBe(200)
  expect(codeOf(await reverse(site.gateway.proxyPort, handle, { method: 'PUT', path: '/echo/echo' }))).toBe(
    'policy_denied',
  )
})
