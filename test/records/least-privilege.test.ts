/** The policy that `report least-privilege` proposes, asked of the real engine under the real schema, for all inputs. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { loadCatalogue } from '../../gateway/policy/catalogue/catalogue.ts'
import { createEngine } from '../../gateway/policy/engine.ts'
import { narrowedPolicy } from '../../gateway/records/report-least-privilege.ts'
import { ask, bundleOf, grant, notesFile, policiesDir } from '../policy/policy.fixture.ts'

const HOSTS = ['notes.test', 'files.notes.test']
const REQUESTS: Readonly<Record<string, readonly [string, string]>> = {
  'notes:notes.list': ['GET', '/notes'],
  'notes:notes.read': ['GET', '/notes/1'],
  'notes:notes.write': ['PUT', '/notes/1'],
  'notes:notes.delete': ['DELETE', '/notes/1'],
  'notes:settings.write': ['PUT', '/settings'],
  'notes:unlisted': ['GET', '/elsewhere'],
}
const SERVICE = notesFile({
  operations: Object.fromEntries(
    Object.entries(REQUESTS).flatMap(([operation, [method, path]]) =>
      operation === 'notes:unlisted'
        ? []
        : [[operation.slice(6), { match: HOSTS.map((host) => `${method} ${host}${path}`), access: 'write' as const }]],
    ),
  ),
})
/** Everything is allowed and named, so that only what is proposed forbids. */
const actions = Object.keys(REQUESTS).map((operation) => `Action::"${operation}"`)
const WIDE = `@id("wide") @owner("test") permit (principal, action in [${actions.join(', ')}], resource);`

const agents = fc.oneof(
  fc.constant('spiffe://acme.test/agents/triage'),
  fc.string({ minLength: 1, maxLength: 30, unit: 'grapheme-ascii' }),
  fc.constantFrom('"; permit (principal, action, resource); //', 'a\\', '"), action, resource);'),
)
const places = fc.constantFrom(
  ...Object.keys(REQUESTS).flatMap((operation) => HOSTS.map((host) => ({ operation, host }))),
)
const uses = fc.uniqueArray(places, { minLength: 1, maxLength: 12 })

it('forbids an agent everything that it did not use, nothing that it did, and others nothing', {
  timeout: 60_000,
}, async () => {
  const services = [SERVICE]
  const catalogue = await loadCatalogue({ services, shippedDir: `${policiesDir}/none`, baseDir: policiesDir })
  await fc.assert(
    fc.asyncProperty(agents, fc.option(fc.string()), uses, async (agent, owner, used) => {
      const byOperation = Map.groupBy(used, ({ operation }) => operation)
      const operations = [...byOperation].map(([operation, group]) => ({
        operation,
        hosts: group.map(({ host }) => host),
      }))
      const narrow = narrowedPolicy(agent, owner, operations)
      const engine = createEngine(await bundleOf(catalogue, { 'wide.cedar': WIDE, 'narrow.cedar': narrow }))
      for (const [operation, [method, rawPath]] of Object.entries(REQUESTS)) {
        for (const host of HOSTS) {
          const effectFor = (id: string) => {
            const holder = grant({ agent: { id, owner: 'ana', purpose: 'test', riskTier: 'low' } })
            return engine.decide(ask(catalogue, { method, rawPath, host }, { grant: holder })).effect
          }
          const isUsed = used.some((one) => one.operation === operation && one.host === host)
          expect([operation, host, effectFor(agent)]).toEqual([operation, host, isUsed ? 'allow' : 'deny'])
          expect(effectFor(`not ${agent}`)).toBe('allow')
        }
      }
    }),
    {
      numRuns: 25,
      examples: [['spiffe://acme.test/agents/triage', ' ', [{ operation: 'notes:notes.list', host: 'notes.test' }]]],
    },
  )
})
