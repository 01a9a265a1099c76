import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { ROOT } from '../rig/process.ts'
import { clients } from './clients.ts'
import { clientsPage, PAGE } from './page.ts'
import { tools } from './tools.ts'

it('docs/clients.md is what the matrix makes of it (npm run docs:clients writes it)', async () => {
  expect(await readFile(PAGE, 'utf8')).toBe(clientsPage())
})

it('every row is told apart by its id and its title, and claims something', () => {
  expect(new Set(clients.map(({ id }) => id)).size).toBe(clients.length)
  expect(new Set(clients.map(({ title }) => title)).size).toBe(clients.length)
  expect(clients.filter(({ works }) => works.length === 0)).toEqual([])
})

it('every tool names a test that is there', () => {
  expect(tools.filter(({ heldBy }) => !existsSync(join(ROOT, heldBy)))).toEqual([])
})
