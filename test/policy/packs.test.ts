/** The shipped packs: each does what its tests say, and no two of them take anything back from one another in silence. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type Catalogue, loadCatalogue } from '../../gateway/policy/catalogue/catalogue.ts'
import { readServiceText } from '../../gateway/policy/catalogue/service-file.ts'
import type { Selection } from '../../gateway/policy/selection.ts'
import { loadBundle } from '../../gateway/policy/source/bundle.ts'
import { coverageOf } from '../../gateway/policy/tools/coverage.ts'
import { differenceOf, type EffectChange } from '../../gateway/policy/tools/difference.ts'
import { PACKS, packNames, shippedPlace } from '../../gateway/policy/tools/packs.ts'
import { reviewPolicies } from '../../gateway/policy/tools/review.ts'
import { parseCall, type Subject, sceneOfCall } from '../../gateway/policy/tools/scene.ts'
import { runTests } from '../../gateway/policy/tools/testing.ts'
import { readTestFile, type TestFile } from '../../gateway/policy/tools/testing-file.ts'
import { loadSettings } from '../../gateway/settings.ts'
import { keylessPolicy } from './command.fixture.ts'
import { notesFile, policiesDir, policyDir, shippedDir } from './policy.fixture.ts'

const DOCS = join(policiesDir, '..', 'docs', 'packs')
const names = packNames()
const file = (name: string) => join(PACKS, `${name}.cedar`)
const shipped = ['defaults.cedar', 'demo.cedar'].map((name) => join(policiesDir, name))

const tests = new Map(
  await Promise.all(
    names.map(async (name) => {
      const label = `${name}.test.yaml`
      return [name, readTestFile(await readFile(join(PACKS, label), 'utf8'), label)] as const
    }),
  ),
)

function testsOf(name: string): TestFile {
  const found = tests.get(name)
  if (found === undefined) throw new Error(`${name} has no tests`)
  return found
}

const selected: readonly Selection[] = [
  ...['github', 'slack', 'stripe', 'anthropic', 'demo'].map((use) => ({ use })),
  { use: 'openai', labels: ['inside'] },
  { use: 'pinecone', hosts: ['notes-a1b2c3d.svc.aped-4627-b74a.pinecone.io'] },
  { use: 'qdrant', hosts: ['qdrant.acme.test'], labels: ['verified'] },
]

/** The shipped services with the operations that some case asks about: a bundle takes as long to load as there are operations. */
async function smallCatalogue(): Promise<Catalogue> {
  const all = await loadCatalogue({ services: selected, shippedDir, baseDir: PACKS })
  const cases = [...tests.values()].flatMap(({ cases }) => cases)
  const calls = cases
    .flatMap(({ call = [] }) => call)
    .map((call) => (typeof call === 'string' ? parseCall(call) : call))
  const asked = new Set([
    ...calls.flatMap((call) => {
      const scene = sceneOfCall({ catalogue: all }, call)
      return scene.kind === 'call' ? [scene.endpoint.operation.name] : []
    }),
    ...cases.flatMap(({ operation = [] }) => operation),
  ])
  const services = await Promise.all(
    selected.map(async ({ use, hosts, labels = [] }) => {
      const description = readServiceText(await readFile(join(shippedDir, `${use}.yaml`), 'utf8'), use)
      if (Array.isArray(description)) throw new Error(JSON.stringify(description))
      const kept = Object.entries(description.operations).filter(([id]) => asked.has(`${use}:${id}`) || use === 'demo')
      const operations = kept.map(([id, one]) => [id, { ...one, labels: [...(one.labels ?? []), ...labels] }])
      return { ...description, hosts: [...(hosts ?? description.hosts)], operations: Object.fromEntries(operations) }
    }),
  )
  return loadCatalogue({ services, shippedDir, baseDir: PACKS })
}

const catalogue = await smallCatalogue()
const whole = await loadCatalogue({ services: ['demo', notesFile()], shippedDir, baseDir: PACKS })

async function subjectOf(...paths: string[]): Promise<Subject> {
  return { catalogue, bundle: await loadBundle({ paths, catalogue }) }
}

describe.each(names)('the pack %s', (name) => {
  it('does what its tests say, and each of its policies decides in one of them', async () => {
    const subject = await subjectOf(...shipped, file(name))
    const results = await runTests(testsOf(name), subject)
    expect(results.flatMap(({ name, faults }) => faults.map((fault) => `${name}: ${fault}`))).toEqual([])
    const own = subject.bundle.policies.filter((policy) => policy.file === `${name}.cedar`)
    expect(coverageOf(own, results).filter(({ cases }) => cases === 0)).toEqual([])
    expect(own.length).toBeGreaterThan(0)
    for (const { owner, review } of own) expect([owner, review]).toEqual(['security', expect.stringMatching(/^\d{4}-/)])
  })

  it('allows nothing to an ordinary agent that the shipped policies do not', async () => {
    const load = (...paths: string[]) => loadBundle({ paths, catalogue: whole })
    const [before, after] = [await load(...shipped), await load(...shipped, file(name))]
    const { effects } = await differenceOf({ catalogue: whole, before, after })
    const wider = effects.filter(({ from, to }) => from === 'deny' && to !== 'deny')
    // Administration in an emergency that custodians opened is what that one pack is for.
    const isEmergency = ({ when }: EffectChange) => name === 'break-glass' && when['context.break_glass'] === true
    expect(wider.filter((change) => !isEmergency(change))).toEqual([])
  })

  it('has a page that names each of its policies', async () => {
    const page = await readFile(join(DOCS, `${name}.md`), 'utf8')
    const { bundle } = await subjectOf(file(name))
    for (const { id } of bundle.policies) expect(page).toContain(`\`${id.split('#')[1]}\``)
    expect(page).toContain(`pack:${name}`)
    expect(await readFile(join(DOCS, 'README.md'), 'utf8')).toContain(`(${name}.md)`)
  })
})

const pairs = names.flatMap((one, i) => names.slice(i + 1).map((other) => [one, other] as const))

/** Every case of `name` put to a subject, looking at nothing but yes, no and ask. */
async function outcomes(name: string, subject: Subject) {
  const file = testsOf(name)
  const cases = file.cases.map(({ decided_by: _, obligations: __, code: ___, ...test }) => test)
  return runTests({ ...file, cases }, subject)
}

/** `read-only-by-default over human-in-the-loop`: what the table of docs/packs/README.md says. */
async function toldOverrules(): Promise<string[]> {
  const page = await readFile(join(DOCS, 'README.md'), 'utf8')
  const table = page.slice(page.indexOf('| Says no or asks |'))
  const rows = [...table.matchAll(/^\| ([a-z-]+) \| ([a-z-, ]+) \|$/gm)]
  return rows.flatMap(([, by, over = '']) => over.split(', ').map((one) => `${by} over ${one}`)).sort()
}

describe('two packs together', () => {
  const overrules = new Set<string>()

  it.each(pairs)(
    '%s and %s load, undo no no of each other, and give their name where they change a yes',
    async (...pair) => {
      const subject = await subjectOf(...shipped, ...pair.map(file))
      const remarks = reviewPolicies({ ...subject, today: '2026-11-22', ceilingS: 3600, isStanding: () => false })
      expect(remarks).toEqual([])
      const effects = new Map(subject.bundle.policies.map(({ id, json }) => [id, json.effect]))
      for (const [own, other] of [pair, pair.toReversed()] as [string, string][]) {
        const others = (await outcomes(own, subject)).filter(({ faults }) => faults.length > 0)
        for (const { name, faults, policyIds } of others) {
          expect(faults, name).toEqual([
            expect.stringMatching(/^expected (?:allow, got (?:deny|approval)|approval, got deny)/),
          ])
          const effect = faults[0]?.includes('got deny') ? 'forbid' : 'permit'
          expect(
            policyIds.filter((id) => effects.get(id) === effect && id.startsWith(`${other}#`)),
            name,
          ).not.toEqual([])
          overrules.add(`${other} over ${own}`)
        }
      }
    },
  )

  it('overrule each other where docs/packs/README.md says it, and nowhere else', async () => {
    expect([...overrules].sort()).toEqual(await toldOverrules())
  })

  it('are all of them loaded together with nothing to remark on', async () => {
    const subject = await subjectOf(...shipped, ...names.map(file))
    expect(reviewPolicies({ ...subject, today: '2026-11-22', ceilingS: 3600, isStanding: () => false })).toEqual([])
  })
})

describe('a pack in the settings', () => {
  async function settingsOf(yaml: string) {
    return loadSettings(join(await policyDir({ 'keyless.yaml': yaml }), 'keyless.yaml'))
  }

  it('is named beside the shipped policies, for what decides and for a candidate', async () => {
    const named = '[shipped, pack:working-hours, ./own]'
    const { policies, policy } = await settingsOf(`policies: ${named}\npolicy: { shadow: { policies: ${named} } }\n`)
    expect(policies.slice(0, 2)).toEqual([policiesDir, file('working-hours')])
    expect(policies[2]).toMatch(/^\/.*\/own$/)
    expect(policy.shadow?.policies).toEqual(policies)
  })

  it.each(['policies: [shipped, pack:working-hour]', 'policy: { shadow: { policies: [pack:workinghours] } }'])(
    'that there is not is told with the one that was meant: %s',
    async (yaml) => {
      await expect(settingsOf(`${yaml}\n`)).rejects.toThrow(
        /policies\.\d[\s\S]*got +"pack:working-?hours?"[\s\S]*allowed +pack:break-glass, [\s\S]*fix +did you mean pack:working-hours\?/,
      )
    },
  )

  it.each(['../secrets', 'working-hours.cedar', '', 'working-hours/../../defaults'])(
    'is a name, never a path: %j',
    (name) => {
      expect(shippedPlace(`pack:${name}`)).toMatchObject({ got: JSON.stringify(`pack:${name}`) })
    },
  )

  it('is in force because it is named, not because of the directory it lies in', async () => {
    const { bundle } = await subjectOf(policiesDir)
    expect(new Set(bundle.policies.map((policy) => policy.file))).toEqual(
      new Set(['policies/defaults.cedar', 'policies/demo.cedar']),
    )
    expect((await subjectOf(PACKS)).bundle.policies.length).toBeGreaterThan(names.length)
  })

  it('can be seen by what a service is labelled with, and the digest changes with the label', async () => {
    const plain = await loadCatalogue({ services: ['slack'], shippedDir, baseDir: PACKS })
    const labelled = await loadCatalogue({
      services: [{ use: 'slack', labels: ['inside'] }],
      shippedDir,
      baseDir: PACKS,
    })
    expect(labelled.digest).not.toBe(plain.digest)
    expect(labelled.service('slack')?.operations.every(({ labels }) => labels?.includes('inside'))).toBe(true)
  })
})

describe('keyless policy packs', () => {
  it('lists what there is, each in a sentence', async () => {
    const { code, stdout } = await keylessPolicy('packs')
    expect(code).toBe(0)
    expect(
      stdout
        .trim()
        .split('\n')
        .map((line) => line.trim().split(/ {2,}/)[0]),
    ).toEqual(names.map((name) => `pack:${name}`))
    expect(stdout).toContain('Agents read.')
  })

  it('prints one, to copy', async () => {
    const { stdout } = await keylessPolicy('packs', 'working-hours')
    expect(stdout).toBe(await readFile(file('working-hours'), 'utf8'))
  })

  it('says which one was meant', async () => {
    const { code, stderr } = await keylessPolicy('packs', 'break-glas')
    expect(code).toBe(1)
    expect(stderr).toContain('did you mean pack:break-glass?')
  })

  it('and the other commands take their names', async () => {
    const { code, stdout } = await keylessPolicy(
      'check',
      '--services',
      'demo',
      '--policies',
      'shipped',
      'pack:break-glass',
    )
    expect(code).toBe(0)
    expect(stdout).toMatch(/in 3 files, 1 service/)
    const wrong = await keylessPolicy('check', '--services', 'demo', '--policies', 'pack:brake-glass')
    expect(wrong.code).toBe(1)
    expect(wrong.stderr).toContain('did you mean pack:break-glass?')
  })
})
