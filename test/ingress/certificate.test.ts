import { execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { authorityTerms, loadAuthority } from '../../gateway/ingress/certificate.ts'

const run = promisify(execFile)
const DAY_MS = 24 * 3_600_000

let dir: string
let nowMs: number
const clock = { nowMs: () => nowMs, elapsedMs: () => 0 }
const terms = { hosts: undefined, days: 365 }

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-ca-'))
  nowMs = Date.now()
})
afterEach(() => rm(dir, { recursive: true }))

test.each([
  ['api.github.com', '-verify_hostname'],
  [`${'a'.repeat(60)}.${'b'.repeat(60)}.example.com`, '-verify_hostname'], // longer than a common name may be
  ['198.51.100.7', '-verify_ip'],
  ['2001:db8::1', '-verify_ip'],
])('openssl accepts a leaf for %s under its strictest rules', async (host, flag) => {
  const authority = await loadAuthority(dir, clock, terms)
  const leaf = await authority.issueLeaf(host)
  await writeFile(join(dir, 'leaf.pem'), leaf.cert)
  const { stdout } = await run('openssl', [
    'verify',
    '-x509_strict',
    '-purpose',
    'sslserver',
    '-CAfile',
    join(dir, 'ca.pem'),
    flag,
    host,
    join(dir, 'leaf.pem'),
  ])
  expect(stdout).toContain('OK')
})

test('a leaf lives at most 24 hours, began an hour ago, and is replaced well before its end', async () => {
  const leaf = await (await loadAuthority(dir, clock, terms)).issueLeaf('a.test')
  const { validFrom, validTo } = new X509Certificate(leaf.cert)
  expect(Date.parse(validTo) - Date.parse(validFrom)).toBeLessThanOrEqual(DAY_MS)
  expect(Math.abs(Date.parse(validFrom) - (nowMs - 3_600_000))).toBeLessThanOrEqual(1_000)
  expect(leaf.renewAtMs).toBeLessThan(Date.parse(validTo) - 3_600_000)
  expect(leaf.renewAtMs).toBeGreaterThan(nowMs)
})

test('a leaf never outlives its root', async () => {
  const authority = await loadAuthority(dir, clock, terms)
  nowMs += 364.5 * DAY_MS
  const leaf = await authority.issueLeaf('a.test')
  expect(Date.parse(new X509Certificate(leaf.cert).validTo)).toBeLessThanOrEqual(
    Date.parse(new X509Certificate(authority.caPem).validTo),
  )
})

test('serials are positive, minimal, 16 bytes, and never repeat', async () => {
  const authority = await loadAuthority(dir, clock, terms)
  const serials = await Promise.all(
    Array.from(
      { length: 50 },
      async () => new X509Certificate((await authority.issueLeaf('a.test')).cert).serialNumber,
    ),
  )
  expect(new Set(serials).size).toBe(50)
  for (const serial of serials) expect(serial).toMatch(/^[4-7][0-9A-F]{31}$/)
})

test('the authority survives a restart, and its files are for the owner only', async () => {
  const first = await loadAuthority(dir, clock, terms)
  const second = await loadAuthority(dir, clock, terms)
  expect(second.caPem).toBe(first.caPem)
  for (const name of ['ca.pem', 'ca.key']) expect((await stat(join(dir, name))).mode & 0o777).toBe(0o600)
  expect((await readdir(dir)).sort()).toEqual(['ca.key', 'ca.pem'])
})

test('replicas that start at once in one directory agree on one authority', async () => {
  const all = await Promise.all(Array.from({ length: 8 }, () => loadAuthority(dir, clock, terms)))
  expect(new Set(all.map(({ caPem }) => caPem)).size).toBe(1)
  const leaf = await all[3]?.issueLeaf('a.test')
  expect(new X509Certificate(leaf?.cert ?? '').verify(new X509Certificate(all[0]?.caPem ?? '').publicKey)).toBe(true)
})

test('a crash between the two files is repaired: the certificate comes back from the pair', async () => {
  const { caPem } = await loadAuthority(dir, clock, terms)
  await rm(join(dir, 'ca.pem'))
  expect((await loadAuthority(dir, clock, terms)).caPem).toBe(caPem)
})

test.each([
  ['a key that is not one', 'ca.key', 'nonsense', /ca\.key/],
  ['a certificate that is not one', 'ca.pem', 'nonsense', /ca\.pem/],
])('%s is an error that says what to do', async (_what, name, text, message) => {
  await loadAuthority(dir, clock, terms)
  await writeFile(join(dir, name), text)
  await expect(loadAuthority(dir, clock, terms)).rejects.toThrow(message)
  await expect(loadAuthority(dir, clock, terms)).rejects.toThrow(/Remove .* to have a new authority made/)
})

test("another gateway's certificate beside our key is refused", async () => {
  await loadAuthority(dir, clock, terms)
  const other = await loadAuthority(join(dir, 'other'), clock, terms)
  await writeFile(join(dir, 'ca.pem'), other.caPem)
  await expect(loadAuthority(dir, clock, terms)).rejects.toThrow(/is not the CA certificate of the key/)
})

test("an operator's own authority stops the start when it has ended, with its date", async () => {
  const made = await loadAuthority(join(dir, 'made'), clock, terms)
  const pair = await readFile(join(dir, 'made', 'ca.key'), 'utf8')
  await writeFile(join(dir, 'ca.key'), pair.slice(0, pair.indexOf('-----BEGIN CERTIFICATE')))
  await writeFile(join(dir, 'ca.pem'), made.caPem)
  nowMs += 340 * DAY_MS
  expect((await loadAuthority(dir, clock, terms)).trouble).toMatch(/ends on .* Replace ca\.key and ca\.pem/)
  nowMs += 26 * DAY_MS
  await expect(loadAuthority(dir, clock, terms)).rejects.toThrow(/ends on/)
})

test('a directory that cannot be written is an error, not a hang', async () => {
  const file = join(dir, 'file')
  await writeFile(file, '')
  await chmod(file, 0o600)
  await expect(loadAuthority(join(file, 'keys'), clock, terms)).rejects.toThrow(/ENOTDIR|EEXIST/)
})

test('an operator may bring their own authority as two plain files', async () => {
  const made = await loadAuthority(join(dir, 'made'), clock, terms)
  const pair = await readFile(join(dir, 'made', 'ca.key'), 'utf8')
  await writeFile(join(dir, 'ca.key'), pair.slice(0, pair.indexOf('-----BEGIN CERTIFICATE')))
  await writeFile(join(dir, 'ca.pem'), made.caPem)
  expect((await loadAuthority(dir, clock, terms)).caPem).toBe(made.caPem)
})

test('hosts of a pattern are signed for by the root on disk, which may not sign outside the fixed end of the pattern', async () => {
  const hosts = ['{bucket}.s3.{region}.amazonaws.com', 'api.github.com']
  const authority = await loadAuthority(dir, clock, authorityTerms({ names: 'services', days: 90 }, [{ hosts }]))
  expect(authority.serves('photos.s3.eu-west-1.amazonaws.com')).toBe(true)
  expect(authority.serves('photos.s3.eu-west-1.amazonaws.com.attacker.test')).toBe(false)
  const byDisk = async (host: string) => {
    await writeFile(join(dir, 'leaf.pem'), authority.issueLeaf(host).cert)
    const options = ['-x509_strict', '-CAfile', join(dir, 'ca.pem'), '-untrusted', join(dir, 'leaf.pem')]
    return run('openssl', ['verify', ...options, '-verify_hostname', host, join(dir, 'leaf.pem')]).then(
      () => true,
      () => false,
    )
  }
  expect(await byDisk('photos.s3.eu-west-1.amazonaws.com')).toBe(true)
  expect(await byDisk('photos.s3.eu-west-1.amazonaws.com.attacker.test')).toBe(false)
})
