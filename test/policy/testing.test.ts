/** `*.test.yaml`: the form, the runner, coverage, JUnit. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { policyCommand } from '../../gateway/cli/policy/policy.ts'
import { junitXml } from '../../gateway/policy/tools/junit.ts'
import { runTests } from '../../gateway/policy/tools/testing.ts'
import { readTestFile } from '../../gateway/policy/tools/testing-file.ts'
import { bundleOf, catalogueOf, notesFile, permit, policyDir } from './policy.fixture.ts'

const catalogue = await catalogueOf(notesFile(), 'demo')

async function run(policies: string, cases: string) {
  const bundle = await bundleOf(catalogue, { 'own.cedar': policies })
  return runTests(readTestFile(cases, 'own.test.yaml'), { bundle, catalogue })
}

const READ = permit('readers', 'principal, action in Action::"read", resource')

describe('a case', () => {
  it('asks what a gateway would ask, by request, operation, mint and delegate', async () => {
    const results = await run(
      `${READ}${permit('minters', 'principal, action == Action::"mint", resource')}`,
      `cases:
  - { name: request, call: GET https://notes.test/notes/7, expect: allow, decided_by: [readers] }
  - { name: operation, operation: notes:notes.write, expect: deny, code: policy_denied, decided_by: [] }
  - { name: mint, mint: "notes:notes.read demo:*", expect: allow, decided_by: [own#minters] }
  - { name: delegate, delegate: [notes:notes.read], expect: deny }
`,
    )
    expect(results.map(({ name, faults }) => [name, faults])).toEqual([
      ['request', []],
      ['operation', []],
      ['mint', []],
      ['delegate', []],
    ])
  })

  it('takes every attribute that policies read as a fact, and time as one fact', async () => {
    const when = `when { context.human_amr.contains("mfa") && resource.getTag("id") == "7" && context.hour_utc == 3 && principal == Agent::"a:1" && context.source_ip.isInRange(ip("10.0.0.0/8")) }`
    const guarded = when.replace('resource.getTag', 'resource.hasTag("id") && resource.getTag')
    const results = await run(
      permit('narrow', 'principal, action in Action::"read", resource', ` ${guarded}`),
      `given: { principal: { id: "a:1" }, context: { human_amr: [mfa], source_ip: 10.1.2.3, now: 2026-11-23T03:30:00Z } }
cases:
  - { name: all hold, call: GET https://notes.test/notes/7, expect: allow }
  - { name: another tag, operation: notes:notes.read, resource: { tags: { id: "8" } }, expect: deny }
  - { name: another hour, call: GET https://notes.test/notes/7, context: { now: 2026-11-23T04:30:00Z }, expect: deny }
  - { name: a grant is asked without them, mint: notes:notes.read, expect: deny }
`,
    )
    expect(results.flatMap(({ faults }) => faults)).toEqual([])
  })

  it('says what it got instead, and by which policy', async () => {
    const [effect, by, ttl, code] = await run(
      `@id("brief") @owner("test") @ttl("60") permit (principal, action in Action::"read", resource);`,
      `cases:
  - { name: effect, operation: notes:notes.list, expect: deny }
  - { name: by, operation: notes:notes.list, expect: allow, decided_by: [other] }
  - { name: ttl, operation: notes:notes.list, expect: allow, obligations: { ttl_s: 30, single_use: true } }
  - { name: code, operation: notes:notes.write, expect: deny, code: scope_exceeded }
`,
    )
    expect(effect?.faults).toEqual([expect.stringMatching(/^expected deny, got allow, decided by \S*own#brief$/)])
    expect(by?.faults).toEqual([expect.stringMatching(/^expected to be decided by other, got \S*own#brief$/)])
    expect(ttl?.faults).toEqual([
      'expected the obligation ttl_s: 30, got 60',
      'expected the obligation single_use: true, got false',
    ])
    expect(code?.faults).toEqual(['expected the code scope_exceeded, got policy_denied'])
  })

  it('is one case for each request or operation that it names', async () => {
    const results = await run(
      READ,
      `cases:
  - { name: reads, operation: [notes:notes.list, notes:notes.read], expect: allow }
  - { name: calls, call: [GET https://notes.test/notes, PUT https://notes.test/notes/1], expect: allow }
`,
    )
    expect(results.map(({ name, faults }) => [name, faults.length])).toEqual([
      ['reads: notes:notes.list', 0],
      ['reads: notes:notes.read', 0],
      ['calls: GET https://notes.test/notes', 0],
      ['calls: PUT https://notes.test/notes/1', 1],
    ])
  })

  it('fails where a policy errs, also when a no is expected', async () => {
    const [wrong] = await run(
      READ,
      'cases: [{ name: a, operation: notes:notes.write, context: { hour_utc: noon }, expect: deny }]',
    )
    expect(wrong?.faults).toEqual([])
    const [read] = await run(
      READ,
      'cases: [{ name: a, operation: notes:notes.read, context: { hour_utc: noon }, expect: deny }]',
    )
    expect(read?.faults[0]).toContain('a policy could not be evaluated')
  })

  it('names the fact that may be meant', async () => {
    const [result] = await run(
      READ,
      'cases: [{ name: a, operation: notes:notes.read, context: { humann: ana }, expect: allow }]',
    )
    expect(result?.faults[0]).toMatch(
      /^context\.humann is nothing that a policy on a call can read\. Did you mean context\.human\?/,
    )
  })
})

describe('a test file', () => {
  it.each([
    ['cases: []', 'own.test.yaml: cases'],
    ['cases: [{ name: a, expect: allow }]', 'exactly one of call, operation, mint, delegate'],
    ['cases: [{ name: a, call: GET https://a.test/, mint: "a:b", expect: allow }]', 'exactly one of'],
    ['cases: [{ name: a, mint: "a:b", expect: perhaps }]', 'own.test.yaml: cases.0.expect'],
    ['cases: [{ name: a, mint: "a:b", expect: deny, because: x }]', 'got: because'],
    ['cases: [{ name: a, mint: "a:b", expect: perhaps }]', 'got: "perhaps"\n    allowed: one of allow, deny, approval'],
    ['', 'got: nothing\n    allowed: a mapping'],
    ['tests: []', 'got: nothing\n    allowed: a list'],
    ['tests: []', 'got: tests\n    allowed: policies, services, given, cases;'],
    ['cases: [', 'allowed: YAML'],
  ])('that is not of the form is refused with the place: %s', (text, says) => {
    expect(() => readTestFile(text, 'own.test.yaml')).toThrow(says)
  })
})

it('writes JUnit XML that holds whatever stands in names and answers', () => {
  const results = [
    { name: 'a "quoted" <name>', faults: [], policyIds: [], ms: 1 },
    { name: 'bell \u0007 and half \ud800', faults: ['got & kept\nsecond'], policyIds: [], ms: 2 },
  ]
  expect(junitXml([{ name: 'p/own.test.yaml', results }])).toBe(`<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="keyless policy test" tests="2" failures="1" errors="0" skipped="0" time="0.0030">
  <testsuite name="p/own.test.yaml" tests="2" failures="1" errors="0" skipped="0" time="0.0030">
    <testcase name="a &quot;quoted&quot; &lt;name&gt;" classname="p/own.test.yaml" file="p/own.test.yaml" time="0.001"/>
    <testcase name="bell \ufffd and half \ufffd" classname="p/own.test.yaml" file="p/own.test.yaml" time="0.002">
      <failure message="got &amp; kept&#10;second" type="expectation">got &amp; kept&#10;second</failure>
    </testcase>
  </testsuite>
</testsuites>
`)
})

describe('keyless policy test', () => {
  afterEach(() => {
    vi.restoreAllMocks()
    process.exitCode = undefined
  })

  async function command(...args: string[]) {
    const written = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const) {
      vi.spyOn(process[name], 'write').mockImplementation((text) => {
        written[name] += String(text)
        return true
      })
    }
    await policyCommand().parseAsync(['test', ...args], { from: 'user' })
    const code = process.exitCode
    vi.restoreAllMocks()
    return { code, ...written }
  }

  const TEST =
    'policies: [own.cedar]\nservices: [demo]\ncases: [{ name: a, operation: demo:notes.list, expect: allow }]\n'

  it('exits with 0 when all is as expected, and tells which policies never decided', async () => {
    const dir = await policyDir({
      'own.cedar': READ + permit('other', 'principal, action == Action::"delegate", resource'),
      'own.test.yaml': TEST,
    })
    const junit = join(dir, 'out.xml')
    const answer = await command(dir, '--junit', junit)
    expect(answer).toMatchObject({ code: 0, stderr: '' })
    expect(answer.stdout).toContain('1 of 2 policies decided in some case (50 %)\n  never decided: ')
    expect(await readFile(junit, 'utf8')).toContain('<testcase name="a"')
    expect(await command(dir, '--coverage', '51')).toMatchObject({ code: 1 })
  })

  it('exits with 1 when a case fails, and with 2 when something cannot be run', async () => {
    const dir = await policyDir({ 'own.cedar': READ, 'own.test.yaml': TEST.replace('allow', 'deny') })
    expect(await command(dir)).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('FAILED a\n    expected deny'),
    })
    await writeFile(join(dir, 'own.cedar'), 'permit (')
    expect(await command(dir)).toMatchObject({ code: 2, stderr: expect.stringContaining('own.cedar:1') })
    expect(await command(join(dir, 'nowhere'))).toMatchObject({ code: 2, stderr: expect.stringContaining('ENOENT') })
  })

  it('passes for everything that is shipped', async () => {
    const answer = await command(join(import.meta.dirname, '../../policies'), '--coverage', '100')
    expect(answer.stderr).toBe('')
    expect(answer.code, answer.stdout).toBe(0)
  })
})

describe('parameters that a service file names', () => {
  const PAY = `@id("pay") @owner("test") permit (principal, action == Action::"pay:pay", resource) when { context.params has amount && context.params.amount <= 100 };`
  const pay = {
    ...{ match: ['POST /pay'], access: 'write', params: { amount: { from: 'body./amount', type: 'long' } } },
  }

  it('are read from the request as a gateway reads them, or are supposed', async () => {
    const own = await catalogueOf(notesFile({ name: 'pay', hosts: ['pay.test'], operations: { pay } as never }))
    const bundle = await bundleOf(own, { 'own.cedar': PAY })
    const file = `cases:
  - { name: little, call: { method: POST, url: "https://pay.test/pay", body: { amount: 100 } }, expect: allow }
  - { name: much, call: { method: POST, url: "https://pay.test/pay", body: { amount: 101 } }, expect: deny }
  - { name: text, call: { method: POST, url: "https://pay.test/pay", body: { amount: "1" } }, expect: deny, code: request_malformed }
  - { name: none, call: POST https://pay.test/pay, expect: deny }
  - { name: supposed, operation: "pay:pay", context: { params: { amount: 7 } }, expect: allow }
`
    const results = await runTests(readTestFile(file, 'own.test.yaml'), { bundle, catalogue: own })
    expect(results.flatMap(({ name, faults }) => faults.map((fault) => `${name}: ${fault}`))).toEqual([])
  })
})
