import { readFile } from 'node:fs/promises'
import { expect, it } from 'vitest'
import { entrySchemas } from '../../gateway/audit/schema/schema.ts'
import { entriesPage, PAGE, SCHEMA, schemaText } from './entries-page.ts'

it('docs/log-entries.md and docs/ar-1.schema.json are what the schema makes of them (npm run docs:entries writes them)', async () => {
  expect(await readFile(PAGE, 'utf8')).toBe(entriesPage())
  expect(await readFile(SCHEMA, 'utf8')).toBe(schemaText())
})

it('every kind takes an entry with a member that was cut, and none with a member that is not told', () => {
  const base = { v: 'ar/1', seq: 0, ts: '2026-11-21T23:04:05.123Z', log: 'l', kind: 'log.sealed' }
  const sealed = entrySchemas.get('log.sealed')
  expect(sealed?.safeParse({ ...base, facts: {} }).success).toBe(true)
  expect(sealed?.safeParse({ ...base, facts: { cut: true, bytes: 70_000, sha256: 'x' } }).success).toBe(true)
  expect(sealed?.safeParse({ ...base, facts: {}, secret: 'x' }).success).toBe(false)
  expect(sealed?.safeParse({ ...base, facts: { secret: 'x' } }).success).toBe(false)
})
