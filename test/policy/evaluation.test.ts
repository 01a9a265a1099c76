import { describe, expect, it } from 'vitest'
import { createPolicy } from '../../gateway/policy/evaluation.ts'
import { loadBundle } from '../../gateway/policy/source/bundle.ts'
import type { Proposal } from '../../gateway/protocol/instruction.ts'
import { ask, bundleOf, catalogueOf, grant, notesFile, permit, policiesDir } from './policy.fixture.ts'

const catalogue = await catalogueOf(notesFile(), 'demo')
const shipped = createPolicy({
  bundle: await loadBundle({ paths: [policiesDir], catalogue }),
  tenant: 'default',
})

function demo(method: string, rawPath: string) {
  return ask(catalogue, { host: 'api.keyless.test', port: 9443, method, rawPath })
}

describe('evaluate', () => {
  it('allows what the grant covers and policy permits, and names the policies for the record', () => {
    expect(shipped.evaluate(ask(catalogue))).toEqual({
      effect: 'allow',
      code: undefined,
      detail: 'Policy allows notes:notes.list.',
      policyIds: ['policies/defaults#read-and-write'],
      policySet: shipped.digest,
      errors: [],
      obligations: { ttlS: undefined, singleUse: false },
      levels: [],
    })
  })

  it('asks the grant first, and says what it has', () => {
    const held = grant({ authority: [{ operations: ['notes:notes.read'] }] })
    const decision = shipped.evaluate(ask(catalogue, { rawPath: '/notes?token=hunter2' }, { grant: held }))
    expect(decision).toMatchObject({ effect: 'deny', code: 'scope_exceeded', policyIds: [] })
    expect(decision.detail).toBe(
      '`GET /notes` on notes.test is the operation notes:notes.list. This grant covers: notes:notes.read. Ask the grantor for a grant with notes:notes.list in its scope.',
    )
  })

  it('says where the grant covers an operation, when the path is what is missing', () => {
    const held = grant({ authority: [{ operations: ['notes:*'], paths: ['/notes/7'] }] })
    expect(shipped.evaluate(ask(catalogue, {}, { grant: held })).detail).toContain('only at: /notes/7')
    expect(shipped.evaluate(ask(catalogue, { rawPath: '/notes/7' }, { grant: held })).effect).toBe('allow')
  })

  it('refuses a grant of another tenant', () => {
    expect(shipped.evaluate(ask(catalogue, {}, { grant: grant({ tenant: 'acme' }) }))).toMatchObject({
      effect: 'deny',
      code: 'grant_invalid',
    })
  })

  it.each([
    ['POST', '/notes', { ttlS: 60, singleUse: false }],
    ['DELETE', '/notes/7', { ttlS: 60, singleUse: true }],
    ['GET', '/echo', { ttlS: undefined, singleUse: false }],
    ['PUT', '/files/a', { ttlS: undefined, singleUse: false }],
  ])('obliges by annotation: %s %s', (method, rawPath, obligations) => {
    expect(shipped.evaluate(demo(method, rawPath))).toMatchObject({ effect: 'allow', obligations })
  })

  it.each([
    ['POST', '/tokens', /itself a credential.*names demo:token\.mint/],
    ['PATCH', '/notes/7', /does not list this call.*names demo:unlisted/],
  ])('denies %s %s by default and says what it would take', (method, rawPath, text) => {
    const decision = shipped.evaluate(demo(method, rawPath))
    expect(decision).toMatchObject({ effect: 'deny', code: 'policy_denied' })
    expect(decision.detail).toMatch(text)
  })

  it('denies what cannot be undone and administration by default', () => {
    expect(shipped.evaluate(ask(catalogue, { method: 'DELETE', rawPath: '/notes/1' }))).toMatchObject({
      effect: 'deny',
      code: 'policy_denied',
      detail: expect.stringContaining('cannot be undone'),
    })
    expect(shipped.evaluate(ask(catalogue, { method: 'PUT', rawPath: '/settings' }))).toMatchObject({
      effect: 'deny',
      code: 'policy_denied',
    })
  })

  it('denies unmanaged hosts until a policy names them', async () => {
    const there = ask(catalogue, { host: 'example.org', rawPath: '/x' })
    expect(shipped.evaluate(there)).toMatchObject({
      effect: 'deny',
      code: 'host_unmanaged',
      detail: expect.stringContaining('example.org'),
    })
    const named = permit(
      'web',
      'principal, action == Action::"unmanaged:read", resource',
      ' when { resource.host == "example.org" }',
    )
    const policy = createPolicy({
      bundle: await bundleOf(catalogue, { 'a.cedar': named }),
      tenant: 'default',
    })
    expect(policy.evaluate(there).effect).toBe('allow')
    expect(policy.evaluate(ask(catalogue, { host: 'example.net' })).code).toBe('host_unmanaged')
  })

  it('tells a call that a policy forbids from one that none allows', async () => {
    const forbid = '@id("no") @owner("x") forbid (principal, action, resource);'
    const detailUnder = async (text: string) => {
      const bundle = await bundleOf(catalogue, { 'a.cedar': text })
      return createPolicy({ bundle, tenant: 'default' }).evaluate(ask(catalogue)).detail
    }
    expect(await detailUnder(permit('all', 'principal, action, resource') + forbid)).toContain('A policy forbids it')
    expect(await detailUnder(permit('none', 'principal, action == Action::"mint", resource'))).toContain(
      'No policy allows it',
    )
  })

  it('keeps policy names and errors out of what the agent reads', async () => {
    const text = `${permit('top-secret-name', 'principal, action, resource is Endpoint')}@id("hidden-name") @owner("x") forbid (principal, action, resource is Endpoint) when { context.ttl_s * 9223372036854775807 > 0 };`
    const policy = createPolicy({
      bundle: await bundleOf(catalogue, { 'a.cedar': text }),
      tenant: 'default',
    })
    const decision = policy.evaluate(ask(catalogue))
    expect(decision).toMatchObject({ effect: 'deny', code: 'policy_denied' })
    expect(decision.errors).toHaveLength(1)
    expect(decision.detail).not.toMatch(/secret-name|hidden-name|overflow/)
  })
})

describe('evaluateInstruction', () => {
  function opening(override: Partial<Extract<Proposal, { kind: 'task.open' }>> = {}): Proposal {
    const held = override.grant ?? grant()
    return { kind: 'task.open', grant: held, authority: held.authority, agent: held.agent, ttlS: 900, ...override }
  }

  it('lets the local human open a task of up to an hour', () => {
    expect(shipped.evaluateInstruction(opening({ ttlS: 3600 }))).toMatchObject({
      effect: 'allow',
      policyIds: ['policies/defaults#local-human-opens-tasks'],
    })
    expect(shipped.evaluateInstruction(opening({ ttlS: 3601 }))).toMatchObject({
      effect: 'deny',
      code: 'policy_denied',
    })
  })

  it('denies humans that no policy speaks of', () => {
    expect(
      shipped.evaluateInstruction(opening({ grant: grant({ human: { iss: 'https://id.acme.test', sub: 'ana' } }) }))
        .effect,
    ).toBe('deny')
  })

  it('asks for every service in the scope, and all must agree', async () => {
    const text = permit(
      'notes-only',
      'principal, action == Action::"mint", resource == Service::"notes"',
      ' when { ["notes:notes.*"].containsAll(["notes:notes.*"]) && context.operations.contains("notes:notes.*") }',
    )
    const policy = createPolicy({
      bundle: await bundleOf(catalogue, { 'a.cedar': text }),
      tenant: 'default',
    })
    expect(policy.evaluateInstruction(opening({ authority: [{ operations: ['notes:notes.*'] }] })).effect).toBe('allow')
    expect(policy.evaluateInstruction(opening({ authority: [{ operations: ['notes:*'] }] })).effect).toBe('deny')
    const both = policy.evaluateInstruction(
      opening({ authority: [{ operations: ['notes:notes.*'] }, { operations: ['demo:*'] }] }),
    )
    expect(both).toMatchObject({ effect: 'deny', detail: expect.stringContaining('demo:*') })
  })

  it('refuses a life longer than the obligation allows, instead of shortening it', async () => {
    const text = '@id("short") @owner("x") @ttl("600") permit (principal, action == Action::"mint", resource);'
    const policy = createPolicy({
      bundle: await bundleOf(catalogue, { 'a.cedar': text }),
      tenant: 'default',
    })
    expect(policy.evaluateInstruction(opening({ ttlS: 600 })).effect).toBe('allow')
    expect(policy.evaluateInstruction(opening({ ttlS: 601 }))).toMatchObject({
      effect: 'deny',
      detail: expect.stringContaining('600 s'),
    })
  })

  it('refuses a task without operations or with those of no service', () => {
    expect(shipped.evaluateInstruction(opening({ authority: [] })).effect).toBe('deny')
    expect(shipped.evaluateInstruction(opening({ authority: [{ operations: ['nothing:*'] }] })).effect).toBe('deny')
  })

  it('always lets a task be ended', () => {
    expect(shipped.evaluateInstruction({ kind: 'task.complete', grant: grant(), reason: 'completed' }).effect).toBe(
      'allow',
    )
  })
})
