/** The pages that users read: every link, heading and test file that they name is there. */
import { existsSync, globSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ROOT } from './rig/process.ts'

const pages = ['README.md', 'SECURITY.md', 'CHANGELOG.md', ...globSync('docs/**/*.md', { cwd: ROOT })]
const textOf = (page: string) => readFileSync(join(ROOT, page), 'utf8')

/** Headings as GitHub names them. */
const anchorsOf = (page: string) =>
  [...textOf(page).matchAll(/^#+ (.+)$/gm)].map(([, title = '']) =>
    title
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  )

describe.each(pages)('%s', (page) => {
  it('leads to files and headings that exist', () => {
    const broken = [...textOf(page).matchAll(/\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)/g)].filter(([, path, anchor]) => {
      const target = path ? join(dirname(page), path) : page
      if (!existsSync(join(ROOT, target))) return true
      return anchor !== undefined && !anchorsOf(target).includes(anchor)
    })
    expect(broken.map(([link]) => link)).toEqual([])
  })

  it('names no test that is not there', () => {
    const named = [...textOf(page).matchAll(/`(test\/[\w/-]+\.ts)`/g)].map(([, name = '']) => name)
    expect(named.filter((name) => !existsSync(join(ROOT, name)))).toEqual([])
  })
})

it('every promise of SECURITY.md names tests that exist', () => {
  const rows = textOf('SECURITY.md')
    .split('\n')
    .filter((line) => /^\| \d+ \|/.test(line))
  expect(rows).toHaveLength(11)
  for (const row of rows) {
    const named = [...row.matchAll(/`([\w/-]+\.test\.ts)`/g)].map(([, name = '']) => name)
    expect(named, row).not.toEqual([])
    expect(named.filter((name) => !existsSync(join(ROOT, name)))).toEqual([])
  }
})
