/** What the pages of the providers show is what settings take. */
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { credentialSchema, providerKinds } from '../../gateway/provider/registry.ts'
import { ROOT } from '../rig/process.ts'

const pages = globSync('docs/providers/*.md', { cwd: ROOT })
const examples = pages.flatMap((page) =>
  [...readFileSync(join(ROOT, page), 'utf8').matchAll(/```yaml\n(.*?)```/gs)].flatMap(([, text = '']) => {
    const { credentials } = (parse(text) ?? {}) as { credentials?: Record<string, unknown> }
    return Object.entries(credentials ?? {}).map(([name, config]) => [page, name, config] as const)
  }),
)

test.each(examples)('%s: %s', (_page, _name, config) => {
  const { error } = credentialSchema.safeParse(config)
  expect(error?.issues ?? []).toEqual([])
})

test('every kind has a page', () => {
  const named = pages.map((page) => page.replace(/^.*\/|\.md$/g, '').replaceAll('-', '_'))
  expect(Object.keys(providerKinds).filter((kind) => !named.includes(kind))).toEqual([])
})
