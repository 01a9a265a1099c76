import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, expect, test } from 'vitest'
import { readSecret } from '../../gateway/provider/reference.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-reference-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))
afterEach(() => {
  delete process.env.KEYLESS_TEST_SECRET
})

const file = (text: string | Buffer): { file: string } => {
  writeFileSync(join(dir, 'secret'), text)
  return { file: 'secret' }
}

test.each([
  ['value\n', 'value'],
  ['value\r\n', 'value'],
  ['value\n\n', 'value\n'], // one newline only: the rest may be meant
  [' value ', ' value '],
  ['-----BEGIN\nabc\n-----END\n', '-----BEGIN\nabc\n-----END'],
])('cuts one trailing newline and nothing else: %j', async (text, expected) => {
  expect((await readSecret(file(text), { baseDir: dir })).reveal()).toBe(expected)
})

test('reads from the environment, from a file and from a command without a shell', async () => {
  process.env.KEYLESS_TEST_SECRET = 'from env'
  expect((await readSecret({ env: 'KEYLESS_TEST_SECRET' }, { baseDir: dir })).reveal()).toBe('from env')
  expect((await readSecret(file('from file'), { baseDir: dir })).reveal()).toBe('from file')
  expect((await readSecret({ exec: ['cat', 'secret'] }, { baseDir: dir })).reveal()).toBe('from file')
  expect((await readSecret({ exec: ['printf', '%s', '$HOME; echo x'] }, { baseDir: dir })).reveal()).toBe(
    '$HOME; echo x',
  )
})

test('a command reads nothing from us and so cannot wait for it', async () => {
  await expect(readSecret({ exec: ['cat'] }, { baseDir: dir })).rejects.toMatchObject({
    code: 'credential_unconfigured',
  })
})

test.each([
  ['an empty variable', { env: 'KEYLESS_TEST_SECRET' }, 'KEYLESS_TEST_SECRET holds no value'],
  ['an endless file', { file: '/dev/zero' }, '64 KiB'],
  ['an endless command', { exec: ['yes', 'canary'] }, 'the command that settings name'],
])('%s is refused', async (_what, reference, words) => {
  process.env.KEYLESS_TEST_SECRET = ''
  const error = await readSecret(reference, { baseDir: dir }).catch((cause: Error) => cause)
  expect(error).toBeInstanceOf(Error)
  expect(String(error)).toContain(words)
  expect(String(error)).not.toContain('canary')
})
