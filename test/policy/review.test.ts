/** `keyless policy check`: what loads, and should be looked at twice. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { reviewPolicies } from '../../gateway/policy/tools/review.ts'
import { keylessPolicy } from './command.fixture.ts'
import { bundleOf, catalogueOf, notesFile, permit, policyDir } from './policy.fixture.ts'

const catalogue = await catalogueOf(notesFile(), 'demo')

const MINT = permit('make', 'principal, action == Action::"mint", resource')

async function remarks(text: string, standing: readonly string[] = [], grants = MINT): Promise<string[]> {
  const bundle = await bundleOf(catalogue, { 'own.cedar': text + grants })
  const isStanding = ({ name }: { name: string }) => standing.includes(name)
  const found = reviewPolicies({ bundle, catalogue, today: '2026-11-22', ceilingS: 900, isStanding })
  return found.map(({ says }) => says.replaceAll(/\S+own#/g, ''))
}

describe('a remark', () => {
  it('is made on a permit that can never allow anything', async () => {
    expect(await remarks(permit('vague', 'principal, action in Action::"notes:token.*", resource'))).toEqual([
      'vague never allows anything: all that it reaches has to be named by the policy that allows it',
    ])
    const forbid = '@id("never") @owner("test") forbid (principal is Agent, action, resource in Service::"notes");'
    expect(
      await remarks(`${permit('some', 'principal, action in Action::"notes:notes.*", resource')}${forbid}`),
    ).toEqual(['some never allows anything: never forbids all of it'])
  })

  it('is not made where something is left to allow', async () => {
    const forbid =
      '@id("writes") @owner("test") forbid (principal, action in Action::"write", resource in Service::"notes");'
    const only = `@id("eve") @owner("test") forbid (principal == Agent::"eve", action, resource);`
    expect(
      await remarks(permit('all', 'principal, action in Action::"notes:notes.*", resource') + forbid + only),
    ).toEqual([])
  })

  it('is made on lives beyond the ceiling', async () => {
    expect(
      await remarks(
        `@id("long") @owner("test") @ttl("1200") permit (principal, action in Action::"read", resource);
         @id("mint") @owner("test") permit (principal, action == Action::"mint", resource) when { context.ttl_s <= 3600 };`,
      ),
    ).toEqual([
      'long says @ttl("1200"), and no grant lives longer than 900 s',
      'mint lets grants live 3600 s, and none lives longer than 900 s',
    ])
  })

  it('is made where what cannot be undone is permitted for long, or often', async () => {
    const named = 'permit (principal, action == Action::"notes:notes.delete", resource);'
    expect(await remarks(`@id("a") @owner("test") ${named}`)).toEqual([
      'a permits notes:notes.delete, which cannot be undone or answers with a credential, without @ttl("60") and @single_use("true")',
    ])
    expect(await remarks(`@id("a") @owner("test") @ttl("60") @single_use("true") ${named}`)).toEqual([])
  })

  it('is made on what harms most, where a standing key serves it', async () => {
    const named = permit('token', 'principal, action == Action::"notes:token.mint", resource')
    const [own, standing] = await remarks(named, ['notes'])
    expect(own).toContain('token permits notes:token.mint')
    expect(standing).toBe('its credential notes never expires, and policies permit notes:token.mint')
    expect(await remarks(permit('reads', 'principal, action in Action::"read", resource'), ['notes'])).toEqual([])
  })

  it('is made on the day after a review was due', async () => {
    const text = (day: string) =>
      `@id("a") @owner("test") @review("${day}") permit (principal, action in Action::"read", resource);`
    expect(await remarks(text('2026-11-21'))).toEqual(['a was to be reviewed by 2026-11-21'])
    expect(await remarks(text('2026-11-22'))).toEqual([])
  })

  it('is made on a policy that says what another says', async () => {
    const scope = 'principal, action in Action::"read", resource'
    expect(await remarks(permit('a', scope) + permit('b', scope))).toEqual([
      expect.stringMatching(/^b says the same as/),
    ])
    expect(await remarks(`${permit('a', scope)}@id("b") @owner("test") @ttl("60") permit (${scope});`)).toEqual([])
  })

  it('is made where calls are permitted and nobody can get a grant for any', async () => {
    const nobody = expect.stringContaining('nothing permits Action::"mint": nobody can open a task')
    const calls = permit('reads', 'principal, action in Action::"read", resource')
    const forbid = '@id("none") @owner("test") forbid (principal, action == Action::"mint", resource);'
    const below = permit('below', 'principal, action == Action::"delegate", resource')
    expect(await remarks(calls, [], '')).toEqual([nobody])
    expect(await remarks(calls + forbid + below, [], '')).toEqual([nobody])
    expect(await remarks(permit('all', 'principal, action, resource'), [], '')).toEqual([])
    expect(await remarks(forbid, [], ''), 'to be put beside others').toEqual([])
  })
})

describe('keyless policy check', () => {
  it('fails for a remark only when it is asked to, and knows standing keys from the settings', async () => {
    const dir = await policyDir({
      'own.cedar': `@id("mint") @owner("test") @ttl("60") @single_use("true") permit (principal, action == Action::"demo:token.mint", resource);${MINT}`,
    })
    const config = join(dir, 'keyless.yaml')
    const credentials = 'credentials: { demo: { provider: static, value: { env: DEMO_KEY } } }'
    await writeFile(config, `data_dir: ${dir}/data\nservices: [demo]\npolicies: [own.cedar]\n${credentials}\n`)
    process.env.DEMO_KEY = 'canary-key-of-some-length'
    try {
      const loose = await keylessPolicy('check', '-c', config)
      expect(loose.stderr).toContain('remark: service demo: its credential demo never expires')
      expect(loose.stdout).toContain('\n1 remark\n')
      expect(loose.code).toBe(0)
      expect((await keylessPolicy('check', '-c', config, '--strict')).code).toBe(1)
    } finally {
      delete process.env.DEMO_KEY
    }
  })

  it('has nothing to remark on what is shipped', async () => {
    expect(await keylessPolicy('check', '--strict', '--services', 'demo', 'github', 'stripe')).toMatchObject({
      code: 0,
      stderr: '',
    })
  })
})
