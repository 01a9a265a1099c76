/** What a refused agent is led to: harmless, named by every grant of its chain, and nearest first. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { candidates } from '../../gateway/policy/tools/alternatives.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import type { Access, Endpoint, Operation, Service } from '../../gateway/protocol/service.ts'

const operation = (id: string, access: Access, match: string, more: Partial<Operation> = {}): Operation => ({
  id,
  name: `hub:${id}`,
  access,
  sensitivity: 'internal',
  returnsSecret: false,
  irreversible: false,
  websocket: false,
  captures: [],
  match: [match],
  ...more,
})

const operations = [
  operation('issues.close', 'write', 'PATCH /repos/{owner}/{repo}/issues/{number}'),
  operation('repos.read', 'read', 'GET /repos/{owner}/{repo}'),
  operation('issues.create', 'write', 'POST /repos/{owner}/{repo}/issues'),
  operation('issues.read', 'read', 'GET /repos/{owner}/{repo}/issues/{number}'),
  operation('issues.lock', 'admin', 'PUT /repos/{owner}/{repo}/issues/{number}/lock'),
  operation('issues.delete', 'write', 'DELETE /repos/{owner}/{repo}/issues/{number}', { irreversible: true }),
  operation('keys.create', 'write', 'POST /keys', { returnsSecret: true }),
  operation('labels.read', 'read', 'GET /repos/{owner}/{repo}/labels/{label}'),
]

const endpoint = (of: Operation): Endpoint => ({
  service: { name: 'hub', hosts: ['hub.test'], operations } as unknown as Service,
  operation: of,
  scheme: 'https',
  host: 'hub.test',
  port: 443,
  path: '/repos/ac me/site/issues/7',
  rawPath: '/repos/ac%20me/site/issues/7',
  params: { owner: 'ac me', repo: 'site', number: '7' },
})

const grant = (names: readonly string[], above?: readonly string[]): Grant =>
  ({
    authority: [{ operations: names }],
    ancestry: above ? [{ id: 'p', authority: [{ operations: above }] }] : [],
  }) as unknown as Grant

const close = operations[0] as Operation

it('leads to the nearest read first, at the same place, and to nothing that reaches further', () => {
  const found = candidates(endpoint(close), grant(['hub:*']), 9)
  expect(found.map(({ request }) => request)).toEqual([
    'GET /repos/ac%20me/site/issues/7',
    'POST /repos/ac%20me/site/issues',
    'GET /repos/ac%20me/site',
    'GET /repos/ac%20me/site/labels/{label}',
  ])
  expect(found[0]?.endpoint).toMatchObject({
    path: '/repos/ac me/site/issues/7',
    operation: { name: 'hub:issues.read' },
  })
})

it('leads to nothing that a grant above does not name', () => {
  const found = candidates(endpoint(close), grant(['hub:*'], ['hub:repos.*']), 9)
  expect(found.map(({ endpoint: { operation: one } }) => one.name)).toEqual(['hub:repos.read'])
})

it('never leads to what cannot be undone, is a credential, reaches further or is not named', () => {
  const names = operations.map(({ name }) => name)
  fc.assert(
    fc.property(fc.constantFrom(...operations), fc.subarray(names), fc.nat(9), (asked, held, limit) => {
      const found = candidates(endpoint(asked), grant(held), limit)
      expect(found.length).toBeLessThanOrEqual(limit)
      for (const { endpoint: other, request } of found) {
        const { name, irreversible, returnsSecret, access } = other.operation
        expect([irreversible, returnsSecret, name === asked.name]).toEqual([false, false, false])
        expect(held).toContain(name)
        expect(access === 'admin' && asked.access !== 'admin').toBe(false)
        expect(request).toMatch(/^[A-Z]+ \/\S*$/)
      }
    }),
  )
})
