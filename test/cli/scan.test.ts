/** `keyless scan` finds what leaked wherever it stands in a stream, shows no value, and is led nowhere by what it reads. Requirements 95, 103, 128. */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { type Finding, findingsIn, masked } from '../../gateway/cli/scan/finder.ts'
import { historyOf } from '../../gateway/cli/scan/git.ts'
import { filesAt, type Place } from '../../gateway/cli/scan/places.ts'
import { scanCommand } from '../../gateway/cli/scan/scan.ts'
import { told } from '../../gateway/cli/scan/words.ts'
import { canaryDigest, createCanaries, LOOKS } from '../../gateway/protocol/canary.ts'
import { loadSecretFinder, type SecretFinder } from '../../gateway/upstream/secret-rules.ts'

const HANDLE = `kh_${'Zq9_'.repeat(10)}abc`
let secrets: SecretFinder
let dir: string

beforeAll(async () => {
  secrets = await loadSecretFinder()
  dir = await mkdtemp(join(tmpdir(), 'keyless-scan-'))
})
afterAll(() => rm(dir, { recursive: true, force: true }))

async function all(places: AsyncIterable<Place> | Iterable<Place>, more: object = {}): Promise<Finding[]> {
  const found: Finding[] = []
  for await (const { name, chunks } of places)
    for await (const one of findingsIn(name, chunks, { secrets, ...more })) found.push(one)
  return found
}

const inText = (text: string, more: object = {}, cut = text.length) =>
  all([{ name: '-', chunks: [Buffer.from(text.slice(0, cut)), Buffer.from(text.slice(cut))] }], more)

describe('a scan', () => {
  it('finds every credential once, with its line, wherever windows and reads are cut', async () => {
    const line = `${'x y '.repeat(2000)}\n`
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 20, max: 70 }), fc.integer({ min: 0, max: 600_000 }), async (lines, cut) => {
        const text = `${line.repeat(lines)}a=${HANDLE}\n${line.repeat(10)}${HANDLE}.`
        const found = await inText(text, { secrets: () => [] }, Math.min(cut, text.length))
        expect(found.map(({ line: at, value }) => [at, value])).toEqual([
          [lines + 1, HANDLE],
          [lines + 12, HANDLE],
        ])
      }),
      { numRuns: 25 },
    )
  })

  it('finds what is in Base64, in UTF-16, and what no pattern knows but the gateway lent', async () => {
    const token = LOOKS.github.make()
    expect(await inText(`data: ${Buffer.from(token).toString('base64')}`)).toMatchObject([
      { rule: 'github (base64)', value: token },
    ])
    const wide = Buffer.from(`\ufeff"${token}"`, 'utf16le')
    expect(await all([{ name: '-', chunks: [wide] }])).toMatchObject([{ rule: 'github', value: token }])
    const leased = (word: string) => (word === 'opaque-0123456789' ? 'crm' : undefined)
    expect(await inText('GET /v1/opaque-0123456789/x?t=opaque-0123456789', { leased })).toMatchObject([
      { rule: 'leased', name: 'crm' },
      { rule: 'leased', name: 'crm' },
    ])
  })

  it('names planted canaries and does not count them', async () => {
    const token = LOOKS.generic.make()
    const canaries = createCanaries({ memory: { look: 'generic', sha256: canaryDigest(token) } })
    const found = await inText(`note ${token}`, { canary: (text: string) => canaries?.find(text) })
    expect(found).toMatchObject([{ rule: 'canary', name: 'memory' }])
    expect(told({ found, ends: new Map(), more: 0, places: 1, skipped: [] }, {})).toContain(
      '0 credentials in 1 place, and 1 canary',
    )
  })

  it('prints no value, in words, JSON or SARIF, and no control character of what it read', async () => {
    const token = LOOKS.github.make()
    const found = (await inText(token)).map((one) => ({ ...one, place: 'a\u001b[2J\u202eb' }))
    for (const form of [{}, { json: true }, { sarif: true }] as const) {
      const text = told({ found, ends: new Map([[token, 'grant revoked']]), more: 0, places: 1, skipped: [] }, form)
      expect(text).not.toContain(token.slice(5))
      expect([...text].filter((one) => '\u001b\u202e'.includes(one))).toEqual([])
    }
    expect(masked('hunter2')).toBe('… (7 characters)')
  })

  it('follows no link, opens no pipe, and leaves out what it is told to', async () => {
    const at = join(dir, 'files')
    await mkdir(join(at, 'node_modules/a'), { recursive: true })
    await writeFile(join(at, 'node_modules/a/key'), HANDLE)
    await writeFile(join(dir, 'outside'), HANDLE)
    await symlink(join(dir, 'outside'), join(at, 'link'))
    await symlink(at, join(at, 'loop'))
    execFileSync('mkfifo', [join(at, 'pipe')])
    expect(await all(filesAt(at, [], () => undefined))).toHaveLength(1)
    expect(await all(filesAt(at, ['node_modules'], () => undefined))).toEqual([])
    expect(await all(filesAt(at, ['node_modules/**'], () => undefined))).toEqual([])
  })

  it('shows what a gateway elsewhere answers without what would steer a terminal', async () => {
    const server = createServer((_, response) => response.writeHead(403).end('{"detail":"no \\u001b[2J\\u202e"}'))
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
    const said: string[] = []
    for (const stream of [process.stdout, process.stderr])
      vi.spyOn(stream, 'write').mockImplementation((text) => said.push(String(text)) > 0)
    vi.stubEnv('KEYLESS_LEAK_TOKEN', 'of-a-reporter')
    const at = join(dir, 'leaked.txt')
    await writeFile(at, HANDLE)
    try {
      const to = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      await scanCommand().parseAsync([at, '--to', to, '--data', join(dir, 'nobody')], { from: 'user' })
      expect(process.exitCode).toBe(2)
      expect(said.join('')).toContain('answered 403: no \\u{1b}[2J\\u{202e}')
      expect(said.join('')).not.toContain(HANDLE)
    } finally {
      vi.restoreAllMocks()
      vi.unstubAllEnvs()
      process.exitCode = undefined
      server.closeAllConnections()
      server.close()
    }
  })

  it('reads the history of a repository, what was removed and dropped included, and runs nothing that it configures', async () => {
    const at = join(dir, 'repo')
    const ran = join(dir, 'ran')
    const git = (...args: string[]) =>
      execFileSync('git', ['-C', at, '-c', 'user.name=t', '-c', 'user.email=t@t.test', ...args], { stdio: 'ignore' })
    await mkdir(at)
    git('init', '-q')
    await writeFile(join(at, 'a b.txt'), `one\ntwo ${HANDLE}\n`)
    await writeFile(join(at, '.gitattributes'), '* diff=evil filter=evil\n')
    git('add', '.')
    git('commit', '-qm', 'first')
    await writeFile(join(at, 'c'), LOOKS.github.make())
    git('add', '.')
    git('commit', '-qm', `second ${LOOKS.github.make()}`)
    git('reset', '-q', '--hard', 'HEAD~1')
    git('rm', '-q', 'a b.txt')
    git('commit', '-qm', 'third')
    for (const key of [
      'core.fsmonitor',
      'diff.external',
      'diff.evil.textconv',
      'filter.evil.smudge',
      'core.pager',
      'core.alternateRefsCommand',
    ])
      git('config', key, `touch ${ran}`)
    const found = await all(historyOf(at))
    expect(found.map(({ place, line, rule }) => `${place.split(':')[2]}:${line} ${rule}`).sort()).toEqual([
      'a b.txt:2 keyless',
      'c:1 github',
      'commit:6 github',
    ])
    expect(existsSync(ran)).toBe(false)
    await expect(all(historyOf(join(dir, 'files')))).rejects.toThrow(/not a git repository/)
  })
})
