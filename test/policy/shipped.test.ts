import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { readServiceText, type ServiceDescription } from '../../gateway/policy/catalogue/service-file.ts'
import { reviewService } from '../../gateway/policy/catalogue/service-review.ts'
import { loadSecretRules } from '../../gateway/upstream/secret-rules.ts'
import { cataloguePage, PAGE } from './catalogue-page.ts'
import { catalogueOf, shippedDir } from './policy.fixture.ts'

const names = (await readdir(shippedDir)).map((file) => file.replace(/\.yaml$/, '')).sort()
const texts = new Map(
  await Promise.all(
    names.map(async (name) => [name, await readFile(join(shippedDir, `${name}.yaml`), 'utf8')] as const),
  ),
)
const findSecrets = await loadSecretRules()

function described(name: string): ServiceDescription {
  const description = readServiceText(texts.get(name) ?? '', name)
  if (Array.isArray(description)) throw new Error(JSON.stringify(description))
  return description
}

describe('docs/catalogue.md', () => {
  it('is what `npm run docs:services` writes', async () => {
    expect(await readFile(PAGE, 'utf8')).toBe(await cataloguePage())
  })
})

describe('the shipped services', () => {
  it.each(names)('%s is described without anything left to look at', (name) => {
    const description = described(name)
    expect(description.name).toBe(name)
    expect(reviewService({ description, written: parse(texts.get(name) ?? ''), findSecrets })).toEqual([])
  })

  it('are at least forty, and any of them can be served together', async () => {
    expect(names.length).toBeGreaterThanOrEqual(40)
    const all = names.map((name) => {
      const { hosts, instance } = described(name)
      return hosts.length > 0 || instance === undefined ? name : { use: name, hosts: [instance] }
    })
    expect((await catalogueOf(...all)).services).toHaveLength(names.length)
  })

  it('send a value only to hosts of one owner', () => {
    for (const name of names) {
      const { hosts, slots } = described(name)
      const signs = slots.every((slot) => slot.in === 'signature' || slot.in === 'certificate')
      if (!signs) for (const host of hosts) expect(host).not.toMatch(/\{(?!region\}|location\}|zone\})/)
    }
  })

  it('say what an SDK wants to see at its start in one way, where several services say it', () => {
    const said = new Map<string, string>()
    for (const name of names) {
      for (const [variable, value] of Object.entries(described(name).placeholders)) {
        expect(said.get(variable) ?? value, `${variable} of ${name}`).toBe(value)
        said.set(variable, value)
      }
    }
  })
})
