import { readFile } from 'node:fs/promises'
import { expect, test } from 'vitest'
import { asGatewayError, GatewayError, problems, type Remedy } from '../../gateway/protocol/problem.ts'

const docs = await readFile(new URL('../../docs/errors.md', import.meta.url), 'utf8')

/** Remedies of DESIGN §13, kept equal to the type by the compiler. */
const REMEDIES = {
  retry: true,
  renew_grant: true,
  request_approval: true,
  ask_grantor: true,
  fix_request: true,
  reauthorize: true,
  fix_configuration: true,
} satisfies Record<Remedy, true>

const rows = docs
  .split('\n')
  .filter((line) => line.startsWith('| `'))
  .map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  )

test('the documented codes are exactly the codes of the table, each with status, Proxy-Status error, remedy and title', () => {
  const documented = rows
    .filter((row) => row.length === 6)
    .map(([code, status, proxyError, remedy, title]) => ({ code, status, proxyError, remedy, title }))
  const expected = Object.entries(problems).map(([code, row]) => ({
    code: `\`${code}\``,
    status: String(row.status),
    proxyError: `\`${row.proxyError}\``,
    remedy: `\`${row.remedy}\``,
    title: row.title,
  }))
  const byCode = (a: { code?: string | undefined }, b: { code?: string | undefined }): number =>
    (a.code ?? '').localeCompare(b.code ?? '')
  expect(documented.sort(byCode)).toEqual(expected.sort(byCode))
})

test('every code says what it means', () => {
  for (const row of rows.filter(({ length }) => length === 6)) expect(row[5]).toMatch(/^.{20,}\.$/)
})

test('the documented remedies are exactly those of the type', () => {
  const documented = rows.filter(({ length }) => length === 2).map(([remedy]) => remedy?.slice(1, -1))
  expect(documented.sort()).toEqual(Object.keys(REMEDIES).sort())
})

test('titles fit a reason phrase and codes fit a header, RFC 9110 §5.5', () => {
  for (const [code, { title, proxyError }] of Object.entries(problems)) {
    expect(code).toMatch(/^[a-z_]+$/)
    expect(proxyError).toMatch(/^[a-z_]+$/)
    expect(title).toMatch(/^[\x20-\x7e]{5,80}$/)
  }
})

test('policy and identity never answer with what makes clients retry', () => {
  for (const { status, remedy } of Object.values<{ status: number; remedy: Remedy }>(problems)) {
    if (['ask_grantor', 'request_approval', 'renew_grant'].includes(remedy)) expect([403, 407]).toContain(status)
    expect(status).not.toBe(429)
  }
})

test('an unexpected error becomes `internal` and its text stays out of the answer', () => {
  const bug = new Error('secret inside')
  const refusal = asGatewayError(bug)
  expect(refusal.code).toBe('internal')
  expect(refusal.detail).not.toContain('secret')
  expect(refusal.cause).toBe(bug)
})

test('an expected refusal passes unchanged', () => {
  const refusal = new GatewayError('use_spent', 'Used.')
  expect(asGatewayError(refusal)).toBe(refusal)
})
