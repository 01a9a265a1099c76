import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Bundle, writeBundle } from '../../gateway/cli/run/bundle.ts'

let dir: string
let bundle: Bundle
let wgetrc: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-test-'))
  const own = [
    'tries = 2',
    'http_password = hunter2',
    'HTTP-Passwd=hunter2',
    'proxy_user = u',
    'user = hunter2',
    'password=hunter2',
    'use_proxy = off',
    'USEPROXY=off',
    'https_proxy = http://elsewhere.test:3128',
    'no_proxy = .test',
    'check_certificate = off',
    'header = Authorization: hunter2',
    'timeout = 7',
  ]
  await writeFile(join(dir, 'wgetrc'), `${own.join('\n')}\n`)
  bundle = await writeBundle('', { WGETRC: join(dir, 'wgetrc') })
  wgetrc = await readFile(bundle.files.wgetrc, 'utf8')
})
afterAll(async () => {
  await bundle.remove()
  await rm(dir, { recursive: true, force: true })
})

it('keeps what the user tells wget that is about neither secrets nor the way out', () => {
  expect(wgetrc).toContain('tries = 2')
  expect(wgetrc).toContain('timeout = 7')
})

it('copies no password and no header into the files of a run', () => {
  expect(wgetrc).not.toContain('hunter2')
})

it('leaves wget no way past the proxy, and no certificates unchecked', () => {
  expect(wgetrc).not.toMatch(/off|elsewhere|no_proxy/)
  expect(wgetrc.trim().split('\n').at(-1)).toBe(`ca_certificate = ${bundle.files.ca}`)
})
