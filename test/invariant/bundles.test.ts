/**
 * SECURITY.md 2: what decides is what trusted keys have signed, byte for byte, and never an older bundle. Whoever controls the source,
 * the network or the disk gains nothing but a bundle that is refused.
 */
import { execFile } from 'node:child_process'
import { createPublicKey, hash, sign } from 'node:crypto'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { directorySource } from '../../gateway/policy/source/dir.ts'
import { gitSource } from '../../gateway/policy/source/git.ts'
import { type Get, httpSource } from '../../gateway/policy/source/http.ts'
import { takeIn } from '../../gateway/policy/source/intake.ts'
import { keep, recall } from '../../gateway/policy/source/kept.ts'
import { cosignManifest, isFileName, MANIFEST, verifyManifest } from '../../gateway/policy/source/signature.ts'
import { ALLOW_ALL, manifestOf, newSigner, type Signer, writeBundle } from '../flow/policy.fixture.ts'

const run = promisify(execFile)
const [ana, bob, eve] = [newSigner(), newSigner(), newSigner()]
const publicOf = ({ pem }: Signer) => createPublicKey(pem)
const trusted = { keys: [publicOf(ana), publicOf(bob)], signatures: 1 }
const files = { 'a.cedar': ALLOW_ALL, 'more/b.cedar': '// nothing\n' }
const terms = { ...trusted, name: undefined, floor: { version: 1 }, nowS: Math.floor(Date.now() / 1000) }
const snapshot = (manifest: Buffer, of: Readonly<Record<string, string>> = files) => ({
  manifest,
  revision: undefined,
  read: async (name: string) => Buffer.from(of[name] ?? ''),
})

let dir: string
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-bundles-'))
})
afterAll(() => rm(dir, { recursive: true, force: true }))

/** An envelope as somebody else would write it, by the text of the DSSE specification. */
function envelope(payload: string, by: Signer, o: { type?: string; signed?: Buffer } = {}): Buffer {
  const type = o.type ?? 'application/vnd.in-toto+json'
  const pae = `DSSEv1 ${Buffer.byteLength(type)} ${type} ${Buffer.byteLength(payload)} ${payload}`
  const sig = sign(null, o.signed ?? Buffer.from(pae), by.key).toString('base64')
  return Buffer.from(
    JSON.stringify({ payload: Buffer.from(payload).toString('base64'), payloadType: type, signatures: [{ sig }] }),
  )
}

const payloadOf = (manifest: Buffer) => Buffer.from(JSON.parse(manifest.toString()).payload, 'base64').toString()

describe('a manifest', () => {
  it('is taken from any writer of DSSE, and refused when anything but the PAE was signed', () => {
    const payload = payloadOf(manifestOf({ files, version: 1 }, ana))
    expect(verifyManifest(envelope(payload, ana), trusted).statement.version).toBe(1)
    expect(() => verifyManifest(envelope(payload, ana, { signed: Buffer.from(payload) }), trusted)).toThrow(
      /no signature/,
    )
    expect(() => verifyManifest(envelope(payload, ana, { type: 'application/json' }), trusted)).toThrow(/of the type/)
    const disguised = JSON.parse(envelope(payload, ana, { type: 'text/x' }).toString())
    const bytes = Buffer.from(JSON.stringify({ ...disguised, payloadType: 'application/vnd.in-toto+json' }))
    expect(() => verifyManifest(bytes, trusted)).toThrow(/no signature/)
  })

  it('needs as many different keys as the settings say', () => {
    const both = { ...trusted, signatures: 2 }
    const once = manifestOf({ files, version: 1 }, ana)
    expect(() => verifyManifest(once, both)).toThrow(/2 of them must sign/)
    const { signatures, ...rest } = JSON.parse(once.toString())
    const twice = Buffer.from(JSON.stringify({ ...rest, signatures: [...signatures, ...signatures] }))
    expect(() => verifyManifest(twice, both)).toThrow(/2 of them must sign/)
    expect(() => verifyManifest(cosignManifest(once, eve.key), both)).toThrow(/2 of them must sign/)
    expect(verifyManifest(cosignManifest(once, bob.key), both).signedBy).toHaveLength(2)
  })

  it('is refused with any other byte in it, and so is every file', async () => {
    const manifest = manifestOf({ files, version: 1 }, ana)
    const payload = Buffer.from(payloadOf(manifest))
    await fc.assert(
      fc.property(fc.nat(payload.length - 1), fc.integer({ min: 1, max: 255 }), (at, by) => {
        const other = Buffer.from(payload)
        other[at] = (other[at] as number) ^ by
        const bytes = JSON.parse(manifest.toString())
        bytes.payload = other.toString('base64')
        expect(() => verifyManifest(Buffer.from(JSON.stringify(bytes)), trusted)).toThrow(/no signature/)
      }),
      { numRuns: 50 },
    )
    await fc.assert(
      fc.asyncProperty(fc.nat(ALLOW_ALL.length - 1), async (at) => {
        const text = `${ALLOW_ALL.slice(0, at)}~${ALLOW_ALL.slice(at + 1)}`
        await expect(takeIn(snapshot(manifest, { ...files, 'a.cedar': text }), terms)).rejects.toThrow(
          /not what was signed/,
        )
      }),
      { numRuns: 50 },
    )
  })

  it('that trusted keys did sign still names plain files, once, in one way', () => {
    const statement = JSON.parse(payloadOf(manifestOf({ files: { 'a.cedar': 'x' }, version: 1 }, ana)))
    const named = (...names: string[]) => ({
      ...statement,
      subject: names.map((name) => ({ name, digest: statement.subject[0].digest })),
    })
    const read = (body: object | string) =>
      verifyManifest(envelope(typeof body === 'string' ? body : JSON.stringify(body), ana), trusted)
    for (const name of [
      '../a.cedar',
      '/a.cedar',
      'a/../../b.cedar',
      '.git/a.cedar',
      'a\\b.cedar',
      'a.cedar/',
      '-x.cedar',
      'a b.cedar',
      'a.txt',
      `${'a'.repeat(200)}.cedar`,
    ]) {
      expect(isFileName(name), name).toBe(false)
      expect(() => read(named(name)), name).toThrow(/no statement/)
    }
    expect(() => read(named('a.cedar', 'a.cedar'))).toThrow(/names a file twice/)
    expect(() => read({ ...statement, predicate: { ...statement.predicate, version: 0 } })).toThrow(/version/)
    expect(() => read({ ...statement, predicate: { ...statement.predicate, more: 1 } })).toThrow(/no statement/)
    expect(() => read(JSON.stringify(statement).replace('"version":1', '"version":1,"version":9'))).toThrow(
      /no statement/,
    )
  })
})

describe('the last good bundle on disk', () => {
  it('is the newest that was taken, and is verified like any other', async () => {
    const path = join(dir, 'kept', 'in-force.json')
    const accepted = await takeIn(snapshot(manifestOf({ files, version: 5 }, ana)), terms)
    await keep(path, accepted)
    expect(await recall(path, terms)).toMatchObject({ floor: { version: 5 }, accepted: { files: accepted.files } })
    // Its key is trusted no more: it does not decide, and nothing older does either.
    const withoutAna = await recall(path, { ...terms, keys: [publicOf(bob)] })
    expect(withoutAna).toMatchObject({
      floor: { version: 5 },
      accepted: undefined,
      trouble: expect.stringMatching(/no signature/),
    })
    const kept = await readFile(path, 'utf8')
    for (const changed of [kept.replace('permit', 'forbid'), kept.slice(0, -20), ''])
      expect(
        (await writeFile(path, changed).then(() => recall(path, terms))).accepted,
        changed.slice(0, 20),
      ).toBeUndefined()
  })

  it('is byte for byte what was signed, also after a restart; what is no text is refused', async () => {
    const path = join(dir, 'kept', 'marked.json')
    const marked = { 'a.cedar': `\ufeff${ALLOW_ALL}` }
    await keep(path, await takeIn(snapshot(manifestOf({ files: marked, version: 1 }, ana), marked), terms))
    expect(await recall(path, terms)).toMatchObject({
      trouble: undefined,
      accepted: { files: new Map(Object.entries(marked)) },
    })
    const bytes = Buffer.from([0x2f, 0x2f, 0xff])
    const manifest = manifestOf({ files: { 'a.cedar': bytes as unknown as string }, version: 1 }, ana)
    await expect(takeIn({ manifest, revision: undefined, read: async () => bytes }, terms)).rejects.toThrow(/not UTF-8/)
  })

  it('does not let its version be used for other policies', async () => {
    const path = join(dir, 'same', 'in-force.json')
    await keep(path, await takeIn(snapshot(manifestOf({ files, version: 5 }, ana)), terms))
    const floor = (await recall(path, terms)).floor
    const other = { 'a.cedar': '// another\n' }
    const offered = snapshot(manifestOf({ files: other, version: 5 }, ana), other)
    await expect(takeIn(offered, { ...terms, floor: floor ?? { version: 1 } })).rejects.toThrow(/another version 5/)
  })
})

describe('a git repository', () => {
  const git = (cwd: string, ...args: string[]) =>
    run('git', ['-c', 'user.name=t', '-c', 'user.email=t@keyless.test', ...args], {
      cwd,
      env: { PATH: process.env.PATH, HOME: dir },
    })
  const openGit = async (work: string, more: object = {}) => {
    const source = gitSource({ url: `file://${work}`, ref: 'refs/heads/main', path: '', ...more }, join(dir, 'bare'))
    return source.open(undefined, AbortSignal.timeout(20_000))
  }

  it('runs nothing of its own: no hook, filter, link, submodule or configuration of anybody', async () => {
    const work = join(dir, 'hostile')
    const proof = join(dir, 'ran')
    await mkdir(work)
    await git(work, 'init', '--quiet', '--initial-branch=main')
    const hook = join(dir, 'hook.sh')
    await writeFile(hook, `#!/bin/sh\necho ran >> ${proof}\ncat\n`)
    await chmod(hook, 0o755)
    await writeBundle(work, { files: { 'a.cedar': ALLOW_ALL }, version: 1 }, ana)
    await writeFile(join(work, '.gitattributes'), '*.cedar filter=evil\n')
    await writeFile(join(work, '.gitmodules'), `[submodule "x"]\n\tpath = x\n\turl = ext::${hook}\n`)
    await symlink('/etc/passwd', join(work, 'link.cedar'))
    await git(work, 'add', '-A')
    await git(work, 'commit', '--quiet', '-m', 'hostile')
    await git(
      work,
      'update-index',
      '--add',
      '--cacheinfo',
      `160000,${(await git(work, 'rev-parse', 'HEAD')).stdout.trim()},x`,
    )
    await git(work, 'commit', '--quiet', '-m', 'submodule')
    // What the user who runs the gateway has configured, and what lies in the environment of the process.
    await writeFile(
      join(dir, '.gitconfig'),
      `[filter "evil"]\n\tsmudge = ${hook}\n[core]\n\thooksPath = ${dir}/hooks\n[url "file:///nowhere"]\n\tinsteadOf = file://${work}\n`,
    )
    await mkdir(join(dir, 'hooks'))
    for (const name of ['post-checkout', 'reference-transaction', 'post-index-change'])
      await symlink(hook, join(dir, 'hooks', name))
    const before = {
      HOME: process.env.HOME,
      GIT_SSH_COMMAND: process.env.GIT_SSH_COMMAND,
      GIT_CONFIG_GLOBAL: process.env.GIT_CONFIG_GLOBAL,
    }
    Object.assign(process.env, { HOME: dir, GIT_SSH_COMMAND: hook, GIT_CONFIG_GLOBAL: join(dir, '.gitconfig') })
    try {
      await using opened = await openGit(work)
      const accepted = await takeIn(opened as NonNullable<typeof opened>, terms)
      expect(accepted.files.get('a.cedar')).toBe(ALLOW_ALL)
      // A link is the text of where it leads, never what is there.
      expect((await opened?.read('link.cedar'))?.toString()).toBe('/etc/passwd')
    } finally {
      for (const [name, value] of Object.entries(before))
        if (value === undefined) delete process.env[name]
        else process.env[name] = value
    }
    await expect(readFile(proof)).rejects.toThrow(/ENOENT/)
    expect(await readdir(join(dir, 'bare'))).not.toContain('a.cedar')
  })

  it('gives no more than its bounds, and takes no word for an option', async () => {
    const work = join(dir, 'large')
    await mkdir(work)
    await git(work, 'init', '--quiet', '--initial-branch=main')
    await writeBundle(work, { files: { 'a.cedar': ALLOW_ALL }, version: 1 }, ana)
    await writeFile(join(work, 'a.cedar'), 'x'.repeat(600_000))
    await git(work, 'add', '-A')
    await git(work, 'commit', '--quiet', '-m', 'large')
    await using opened = await openGit(work)
    await expect(opened?.read('a.cedar')).rejects.toThrow(/git cat-file/)
    await expect(openGit(work, { ref: '--upload-pack=touch /tmp/x' })).rejects.toThrow(/git fetch/)
    await expect(openGit(work, { url: `ext::sh -c touch% ${dir}/ext` })).rejects.toThrow(/git fetch/)
    await expect(readFile(join(dir, 'ext'))).rejects.toThrow(/ENOENT/)
  })
})

describe('a directory', () => {
  it('is not waited for where something else than a file stands in it', async () => {
    const place = join(dir, 'pipes')
    await mkdir(place)
    await run('mkfifo', [join(place, MANIFEST)])
    await expect(directorySource(place).open(undefined, AbortSignal.timeout(1000))).rejects.toThrow(/is not a file/)
  })
})

describe('an address', () => {
  it('that leads elsewhere is not followed, nor read without end', async () => {
    const large = createServer((_, response) => void response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end())
    await new Promise<void>((done) => large.listen(0, '127.0.0.1', done))
    const get: Get = async (url) => {
      const answer = await fetch(url, { redirect: 'manual' })
      return { status: answer.status, etag: undefined, body: Buffer.from(await answer.arrayBuffer()) }
    }
    const url = `http://127.0.0.1:${(large.address() as AddressInfo).port}/prod`
    await expect(httpSource(url, get).open(undefined, AbortSignal.timeout(1000))).rejects.toThrow(/answered 302/)
    large.close()
    const endless: Get = async () => ({ status: 200, etag: undefined, body: Buffer.alloc(300 * 1024) })
    await expect(httpSource(url, endless).open(undefined, AbortSignal.timeout(1000))).rejects.toThrow(/larger than/)
  })

  it('does not say that nothing has changed to whoever knows nothing', async () => {
    const get: Get = async () => ({ status: 304, etag: '"x"', body: Buffer.alloc(0) })
    await expect(httpSource('http://x', get).open(undefined, AbortSignal.timeout(1000))).rejects.toThrow(/answered 304/)
  })

  it('serves what was signed, whatever is missing or of another time', async () => {
    const manifest = manifestOf({ files, version: 1 }, ana)
    const served = new Map([
      [MANIFEST, manifest],
      ['a.cedar', Buffer.from(ALLOW_ALL)],
    ])
    const get: Get = async (url) => {
      const body = served.get(url.replace('http://x/', ''))
      return {
        status: body === undefined ? 404 : 200,
        etag: hash('sha256', body ?? '', 'hex'),
        body: body ?? Buffer.alloc(0),
      }
    }
    const offered = await httpSource('http://x', get).open(undefined, AbortSignal.timeout(1000))
    await expect(takeIn(offered as NonNullable<typeof offered>, terms)).rejects.toThrow(/more\/b\.cedar.*answered 404/)
  })
})
