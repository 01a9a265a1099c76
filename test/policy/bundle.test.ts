import { cp, mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { loadBundle } from '../../gateway/policy/source/bundle.ts'
import { allServices, bundleOf, catalogueOf, notesFile, permit, policiesDir, policyDir } from './policy.fixture.ts'

const notes = await catalogueOf(notesFile())

function faultsOf(files: Readonly<Record<string, string>>) {
  return expect(bundleOf(notes, files)).rejects
}

describe('a bundle', () => {
  it('loads the shipped policies with every choice of services', async () => {
    for (const services of [allServices, ['github'], ['demo'], []]) {
      const bundle = await loadBundle({ paths: [policiesDir], catalogue: await catalogueOf(...services) })
      expect(bundle.policies.map((policy) => policy.id)).toContain('policies/defaults#read-and-write')
    }
  })

  it('names every policy by file and @id, with its place', async () => {
    const bundle = await bundleOf(notes, {
      'b.cedar': permit('one', 'principal, action, resource'),
      'a.cedar': `// first\n\n${permit('one', 'principal, action, resource')}`,
    })
    expect(bundle.policies.map((policy) => [policy.id.replace(/^.*\//, ''), policy.line])).toEqual([
      ['a#one', 3],
      ['b#one', 1],
    ])
  })

  it('knows the line of each of many policies, whatever order Cedar gives them back in', async () => {
    const texts = Array.from(
      { length: 120 },
      (_, n) => `// number ${n}: “é”\n${permit(`p${n}`, 'principal, action, resource')}`,
    )
    const source = texts.join('\n\n')
    const bundle = await bundleOf(notes, { 'many.cedar': source })
    const lines = source.split('\n')
    for (const policy of bundle.policies) {
      const id = policy.id.replace(/^.*#/, '')
      expect(lines[policy.line - 1]).toContain(`@id("${id}")`)
    }
    expect(bundle.policies).toHaveLength(120)
  })

  it('finds the fault in a policy about one service among policies about others', async () => {
    await faultsOf({
      'a.cedar': [
        permit('general', 'principal, action, resource'),
        `@id("own") @owner("o") permit (principal, action == Action::"notes:notes.read", resource) when { context.nothing == 1 };`,
      ].join('\n'),
    }).toThrow(/a\.cedar:\d+[\s\S]*nothing/)
  })

  it('has the same digest for other comments and layout, and another for other content', async () => {
    const files = { 'a.cedar': permit('one', 'principal, action, resource') }
    const base = await policyDir(files)
    const digest = async (text: string, catalogue = notes) => {
      await writeFile(join(base, 'a.cedar'), text)
      return (await loadBundle({ paths: [base], catalogue })).digest
    }
    const first = await digest(files['a.cedar'])
    expect(first).toMatch(/^sha256:[0-9a-f]{64}$/)
    expect(await digest('// words\n@owner("test")\n@id("one")\npermit ( principal,\naction, resource );')).toBe(first)
    expect(await digest(permit('two', 'principal, action, resource'))).not.toBe(first)
    const other = await catalogueOf(
      notesFile({ operations: { 'notes.list': { match: ['GET /notes', 'GET /all'], access: 'read' } } }),
    )
    expect(await digest(files['a.cedar'], other)).not.toBe(first) // what requests are taken for is part of the decision
  })

  it('slices by what a policy can match, so that a policy about one thing is not asked about another', async () => {
    const bundle = await bundleOf(notes, {
      'a.cedar': [
        permit('all', 'principal, action, resource is Endpoint'),
        permit('readers', 'principal, action in Action::"read", resource'),
        permit('service', 'principal, action, resource in Service::"notes"'),
        permit('group', 'principal, action in Action::"notes:notes.*", resource'),
        permit('named', 'principal, action in [Action::"notes:notes.list", Action::"notes:token.mint"], resource'),
        permit('endpoint', 'principal, action, resource == Endpoint::"notes:notes.list"'),
        permit('mint', 'principal, action == Action::"mint", resource == Service::"notes"'),
        permit('elsewhere', 'principal, action == Action::"github:issues.read", resource'),
      ].join(''),
    })
    const ids = (slice: { policies: ReadonlyMap<string, unknown> }) =>
      [...slice.policies.keys()].map((id) => id.split('#')[1])
    const operation = (name: string) => {
      const found = notes.services[0]?.operations.find((candidate) => candidate.name === name)
      if (found === undefined) throw new Error(name)
      return found
    }
    expect(ids(bundle.sliceFor(operation('notes:notes.list')))).toEqual([
      'all',
      'readers',
      'service',
      'group',
      'named',
      'endpoint',
    ])
    expect(ids(bundle.sliceFor(operation('notes:notes.write')))).toEqual(['all', 'service', 'group'])
    expect(ids(bundle.sliceFor(operation('notes:settings.write')))).toEqual(['all', 'service'])
    expect(ids(bundle.grantSliceFor('mint', 'notes'))).toEqual(['service', 'mint'])
    expect(ids(bundle.grantSliceFor('mint', 'nothing'))).toEqual([])
  })

  it.each([
    ['no @id', '@owner("x") permit (principal, action, resource);', /1\n.*no @id/],
    ['no @owner', '\n@id("x") permit (principal, action, resource);', /:2\n.*no @owner/],
    ['an empty @owner', '@id("x") @owner(" ") permit (principal, action, resource);', /no @owner/],
    ['an unknown annotation', '@id("x") @owner("x") @approve("me") permit (principal, action, resource);', /@approve/],
    ['a @ttl of nothing', '@id("x") @owner("x") @ttl permit (principal, action, resource);', /@ttl/],
    ['a @ttl of 0', '@id("x") @owner("x") @ttl("0") permit (principal, action, resource);', /1 to 3600/],
    ['a @ttl of 3601', '@id("x") @owner("x") @ttl("3601") permit (principal, action, resource);', /1 to 3600/],
    ['a @ttl of 5m', '@id("x") @owner("x") @ttl("5m") permit (principal, action, resource);', /1 to 3600/],
    [
      '@single_use("yes")',
      '@id("x") @owner("x") @single_use("yes") permit (principal, action, resource);',
      /single_use/,
    ],
    [
      'an obligation on a forbid',
      '@id("x") @owner("x") @ttl("5") forbid (principal, action, resource);',
      /permit only/,
    ],
    [
      'one @id twice in a file',
      permit('x', 'principal, action, resource') + permit('x', 'principal, action, resource is Endpoint'),
      /a second policy/,
    ],
    [
      'an unknown operation',
      permit('x', 'principal, action == Action::"notes:note.list", resource'),
      /did you mean `Action::"notes:notes.list"`/,
    ],
    ['an unknown attribute', permit('x', 'principal, action, resource', ' when { principal.team == "x" }'), /team/],
    [
      'a value of the wrong type',
      permit('x', 'principal, action, resource is Endpoint', ' when { resource.port == "443" }'),
      /type|types/,
    ],
    [
      'an unguarded optional tag',
      permit('x', 'principal, action, resource is Endpoint', ' when { resource.getTag("id") == "7" }'),
      /tag/,
    ],
    ['a policy that can never apply', permit('x', 'principal, action, resource', ' when { false }'), /impossible/],
    ['a misspelt service', permit('x', 'principal, action, resource in Service::"note"'), /Service::"note"/],
    [
      'a misspelt service in a condition',
      permit('x', 'principal, action, resource is Endpoint', ' when { resource in Service::"note" }'),
      /Service::"note"/,
    ],
    ['a template', '@id("x") @owner("x") permit (principal == ?principal, action, resource);', /template/],
    ['broken text', 'permit (principal, action', /a\.cedar:1/],
  ])('refuses %s, and says where', async (_, text, expected) => {
    await faultsOf({ 'a.cedar': text }).toThrow(expected)
  })

  it('reports everything that is wrong in one go', async () => {
    await faultsOf({
      'a.cedar': 'permit (principal, action, resource',
      'b.cedar': '@id("x") permit (principal, action == Action::"no:no", resource);',
    }).toMatchObject({
      faults: [
        { where: expect.stringMatching(/a\.cedar:1$/) },
        { got: 'no @owner' },
        { got: expect.stringContaining('no:no') },
      ],
    })
  })

  it('says of a place that is named twice just that, and not what follows from it', async () => {
    const twice = loadBundle({ paths: [policiesDir, policiesDir], catalogue: notes })
    await expect(twice).rejects.toThrow(/^1 problem in [^\n]+\n {2}policies\n {4}got: .*policies twice\n/)
  })

  it('refuses paths without policies', async () => {
    const empty = await policyDir({})
    await expect(loadBundle({ paths: [empty, join(empty, 'none')], catalogue: notes })).rejects.toThrow(
      /no \*\.cedar file[\s\S]*ENOENT/,
    )
  })

  it('reads directories to the bottom', async () => {
    const dir = await policyDir({ 'top.cedar': permit('x', 'principal, action, resource') })
    await mkdir(join(dir, 'team'))
    await cp(join(dir, 'top.cedar'), join(dir, 'team', 'top.cedar'))
    const bundle = await loadBundle({ paths: [dir], catalogue: notes })
    expect(bundle.policies).toHaveLength(2)
    expect(new Set(bundle.policies.map((policy) => policy.id)).size).toBe(2)
  })
})
