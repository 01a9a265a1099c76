/** SECURITY.md 9: git and git-lfs, unmodified: large repositories, partial clones, objects with credentials of their own, refusals in words. */
import { createHash, randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { onPath } from '../rig/cache.ts'
import { findCanary, newCanary } from '../rig/canary.ts'
import { type GitServer, startGit } from '../rig/git.ts'
import { LfsStore } from '../rig/lfs.ts'
import { type Ended, run, runOk } from '../rig/process.ts'

const MB = 1024 * 1024
const FILES = 16
const NEWLINE = Buffer.from('\n')
const password = newCanary().replaceAll(/[^\w+=]/g, '')
const lfs = new LfsStore()

let git: GitServer
let site: OpenSite
let task: OpenedTask
let reader: OpenedTask
let work: string
let home: string

const at = (operation: string) => [
  `GET /{owner}/{repo}.git/info/refs?service=${operation}`,
  `POST /{owner}/{repo}.git/${operation}`,
]
const operations = {
  fetch: { match: at('git-upload-pack'), access: 'read' as const },
  push: { match: at('git-receive-pack'), access: 'write' as const },
  'lfs.batch': { match: ['POST /{owner}/{repo}.git/info/lfs/objects/batch'], access: 'write' as const },
  'lfs.verify': { match: ['POST /{owner}/{repo}.git/info/lfs/locks/verify'], access: 'read' as const },
  // Each comes with the authorization that its batch gave it.
  'lfs.objects': {
    match: ['GET /lfs/objects/{oid}', 'PUT /lfs/objects/{oid}'],
    access: 'write' as const,
    attach: 'none' as const,
  },
}

const described = { hosts: ['git.keyless.test'], slots: [{ in: 'basic' as const, username: 'x-access-token' }] }

beforeAll(async () => {
  git = await startGit({ password, lfs })
  const service = { ...described, operations }
  site = await openSite(
    { port: git.port, caPem: git.caPem },
    { services: [{ name: 'git', dialect: 'git', ...service }], credentials: { git: password } },
  )
  task = await site.gateway.openTask('git:*')
  reader = await site.gateway.openTask('git:fetch')
  work = await mkdtemp(join(tmpdir(), 'keyless-git-work-'))
  home = join(work, 'home')
  await mkdir(home)
  await writeFile(join(home, 'ca.pem'), (await site.gateway.control.status()).ca_pem)
  // Whoever is asked for a password leaves a trace.
  await writeFile(join(home, 'askpass'), `#!/bin/sh\necho "$1" >> ${home}/asked\necho nothing\n`, { mode: 0o700 })
  await fill()
}, 60_000)

afterAll(async () => {
  await site.stop()
  await git.stop()
  await rm(work, { recursive: true, force: true })
})

/** 64 MB that no compression makes smaller, in two commits, as one pack that is sent as it is. */
async function fill(): Promise<void> {
  const commit = (n: number, rest: string) =>
    `commit refs/heads/main\nmark :${100 + n}\ncommitter a <a@keyless.test> ${1_700_000_000 + n} +0000\ndata 1\n${n}\n${rest}\n`
  const files = Array.from({ length: FILES }, (_, i) => `M 100644 :${i + 1} file-${i}\n`)
  const input = Buffer.concat([
    ...files.flatMap((_, i) => [Buffer.from(`blob\nmark :${i + 1}\ndata ${4 * MB}\n`), randomBytes(4 * MB), NEWLINE]),
    Buffer.from(commit(1, files.join(''))),
    Buffer.from(commit(2, 'from :101\nM 100644 inline note\ndata 18\nthe second commit\n')),
  ])
  const fast = ['core.compression=0', 'core.bigFileThreshold=1m', 'fastimport.unpackLimit=0'].flatMap((one) => [
    '-c',
    one,
  ])
  await runOk('git', ['-C', git.repository, ...fast, 'fast-import', '--quiet', '--depth=0'], {
    input,
    timeoutMs: 60_000,
  })
}

const url = () => `https://git.keyless.test:${git.port}${git.path}`

/** git with a proxy and a CA, and nothing else that is ours: as it is without `keyless run`. */
function plainGit(
  args: readonly string[],
  o: { as?: OpenedTask; handle?: string; where?: OpenSite; trace?: boolean } = {},
): Promise<Ended> {
  const { as = task, where = site } = o
  const proxy = `http://${as.task}:${o.handle ?? as.handle}@127.0.0.1:${where.gateway.proxyPort}`
  const identity = {
    GIT_AUTHOR_NAME: 'a',
    GIT_AUTHOR_EMAIL: 'a@keyless.test',
    GIT_COMMITTER_NAME: 'a',
    GIT_COMMITTER_EMAIL: 'a@keyless.test',
  }
  return run('git', args, {
    cwd: work,
    timeoutMs: 60_000,
    env: {
      PATH: process.env.PATH,
      HOME: home,
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_ASKPASS: join(home, 'askpass'),
      GIT_SSL_CAINFO: join(home, 'ca.pem'),
      https_proxy: proxy,
      ...(o.trace && { GIT_TRACE: '1', GIT_CURL_VERBOSE: '1' }),
      ...identity,
    },
  })
}

async function git0(args: readonly string[]): Promise<Ended> {
  const ended = await plainGit(args)
  expect(ended.code, ended.stderr).toBe(0)
  return ended
}

const asked = () => readFile(join(home, 'asked'), 'utf8').catch(() => '')

beforeEach(() => rm(join(home, 'asked'), { force: true }))

describe('git', () => {
  it('sends its proxy credentials once it is asked, and none to the server, which has ours from the first request on', {
    timeout: 60_000,
  }, async () => {
    const before = git.requests.length
    await git0(['ls-remote', url()])
    const entries = await entriesOf(site.gateway.settings.dataDir)
    expect(entries.filter(({ decision }) => decision?.code === 'grant_missing')).toHaveLength(1)
    expect(git.requests.slice(before)).toHaveLength(2)
    expect([...git.authorizations.keys()]).toEqual([basic(git.username, password)])
    expect(await asked()).toBe('')
  })

  it('clones 64 MB that do not compress', { timeout: 60_000 }, async () => {
    await git0(['clone', '--quiet', url(), 'whole'])
    await git0(['-C', 'whole', 'fsck', '--no-progress'])
    expect(await readdir(join(work, 'whole'))).toHaveLength(FILES + 2)
  })

  it('clones one commit, and then the rest of the history', { timeout: 60_000 }, async () => {
    await git0(['clone', '--quiet', '--depth', '1', '--no-checkout', '--filter=blob:none', url(), 'shallow'])
    expect((await git0(['-C', 'shallow', 'rev-list', '--count', 'HEAD'])).stdout).toBe('1\n')
    await git0(['-C', 'shallow', 'fetch', '--quiet', '--unshallow'])
    expect((await git0(['-C', 'shallow', 'rev-list', '--count', 'HEAD'])).stdout).toBe('2\n')
  })

  it('clones without blobs, and fetches one when it is looked at', { timeout: 60_000 }, async () => {
    await git0(['clone', '--quiet', '--no-checkout', '--filter=blob:none', url(), 'partial'])
    const before = git.requests.length
    expect((await git0(['-C', 'partial', 'show', 'HEAD:note'])).stdout).toBe('the second commit\n')
    expect(git.requests.slice(before).filter((one) => one.startsWith('POST'))).not.toEqual([])
  })

  it('pushes more than fits into one request of known length', { timeout: 60_000 }, async () => {
    await git0(['clone', '--quiet', '--depth', '1', '--no-checkout', '--filter=blob:none', url(), 'pushing'])
    const tree = await git0(['-C', 'pushing', 'mktree', '--missing'])
    expect(tree.code).toBe(0)
    await writeFile(join(work, 'pushing', 'large'), randomBytes(5 * MB))
    await git0(['-C', 'pushing', 'checkout', '--quiet', '--orphan', 'large'])
    await git0(['-C', 'pushing', 'reset', '--quiet'])
    await git0(['-C', 'pushing', 'add', 'large'])
    await git0(['-C', 'pushing', 'commit', '--quiet', '--message', 'large'])
    await git0(['-C', 'pushing', 'push', '--quiet', 'origin', 'large'])
    expect(git.requests).toContain(`POST ${git.path}/git-receive-pack chunked`)
    expect(await runOk('git', ['-C', git.repository, 'cat-file', '-s', 'large:large'])).toBe(`${5 * MB}\n`)
  })

  it('sends nothing of a remote that names a user and a password', { timeout: 60_000 }, async () => {
    await git0(['ls-remote', url().replace('https://', 'https://someone:their-own-password@')])
    expect([...git.authorizations.keys()]).toEqual([basic(git.username, password)])
  })

  it('may not push under a task that only fetches: it says why, and asks nobody for a password', {
    timeout: 60_000,
  }, async () => {
    const ended = await plainGit(['-C', 'pushing', 'push', 'origin', 'large:other'], { as: reader })
    expect(ended.code).not.toBe(0)
    expect(ended.stderr).toMatch(/remote: The grant does not cover this operation: .*git:push.*scope_exceeded/)
    expect(await asked()).toBe('')
  })

  it('ends with a sentence when the grant is not known, without a prompt for the server', {
    timeout: 60_000,
  }, async () => {
    const ended = await plainGit(['ls-remote', url()], { handle: 'kh_nobody' })
    expect(ended.code).not.toBe(0)
    expect(ended.stderr).toMatch(/CONNECT tunnel failed, response 407|Proxy Authentication Required/)
  })

  it('is never asked for a password that the gateway should have had right', { timeout: 60_000 }, async () => {
    const service = { ...described, operations }
    const stale = await openSite(
      { port: git.port, caPem: git.caPem },
      { services: [{ name: 'git', dialect: 'git', ...service }], credentials: { git: 'a-password-of-last-year' } },
    )
    try {
      await writeFile(join(home, 'ca.pem'), (await stale.gateway.control.status()).ca_pem)
      const ended = await plainGit(['ls-remote', url()], { where: stale, as: await stale.gateway.openTask('git:*') })
      expect(ended.code).not.toBe(0)
      expect(ended.stderr).toContain('403')
      expect(await asked()).toBe('')
    } finally {
      await writeFile(join(home, 'ca.pem'), (await site.gateway.control.status()).ca_pem)
      await stale.stop()
    }
  })
})

/** .ci/run installs it. */
describe.runIf(process.env.CI !== undefined || onPath('git-lfs'))('git-lfs', () => {
  it('pushes and pulls 20 MB, with the authorization of each object beside the credential of the repository', {
    timeout: 60_000,
  }, async () => {
    const object = randomBytes(20 * MB)
    await git0(['init', '--quiet', '--initial-branch=media', 'media'])
    await git0(['-C', 'media', 'lfs', 'install', '--local'])
    await git0(['-C', 'media', 'lfs', 'track', '*.bin'])
    await writeFile(join(work, 'media', 'film.bin'), object)
    await git0(['-C', 'media', 'add', '.'])
    await git0(['-C', 'media', 'commit', '--quiet', '--message', 'a film'])
    await git0(['-C', 'media', 'remote', 'add', 'origin', url()])
    await git0(['-C', 'media', 'push', '--quiet', 'origin', 'media'])
    expect([...lfs.objects.values()].map(({ length }) => length)).toEqual([20 * MB])

    const pulled = [
      await git0(['clone', '--quiet', '--no-checkout', '--depth', '1', '--branch', 'media', url(), 'pulled']),
    ]
    pulled.push(await git0(['-C', 'pulled', 'lfs', 'install', '--local']))
    pulled.push(await git0(['-C', 'pulled', 'checkout', '--quiet', 'media']))
    expect(object.equals(await readFile(join(work, 'pulled', 'film.bin')))).toBe(true)
    expect(lfs.presented).toHaveLength(2)
    expect(lfs.presented.every((one) => lfs.handedOut.has(one))).toBe(true)
    expect([...git.authorizations.keys()]).not.toContain('')
    expect(findCanary(JSON.stringify(pulled), password)).toEqual([])
  })

  it('holds a placeholder for each object where the batch is captured, and pulls all the same', {
    timeout: 60_000,
  }, async () => {
    const captured = {
      ...operations,
      'lfs.batch': {
        ...operations['lfs.batch'],
        returns_secret: true,
        captures: ['/objects/*/actions/*/header/Authorization'],
      },
      'lfs.objects': { match: operations['lfs.objects'].match, access: 'write' as const },
    }
    const service = { ...described, operations: captured }
    const holding = await openSite(
      { port: git.port, caPem: git.caPem },
      {
        services: [{ name: 'git', dialect: 'git', ...service }],
        credentials: { git: password },
        policies: {
          text: '@id("lfs") @owner("test") permit (principal, action == Action::"git:lfs.batch", resource);',
        },
      },
    )
    try {
      await writeFile(join(home, 'ca.pem'), (await holding.gateway.control.status()).ca_pem)
      const ask = { where: holding, as: await holding.gateway.openTask('git:*') }
      const before = lfs.presented.length
      await plainGit(['clone', '--quiet', '--no-checkout', '--depth', '1', '--branch', 'media', url(), 'held'], ask)
      await plainGit(['-C', 'held', 'lfs', 'install', '--local'], ask)
      const pulled = await plainGit(['-C', 'held', 'checkout', 'media'], { ...ask, trace: true })
      expect(pulled.code, pulled.stderr).toBe(0)
      const film = await readFile(join(work, 'held', 'film.bin'))
      expect(lfs.objects.get(createHash('sha256').update(film).digest('hex'))?.equals(film)).toBe(true)
      // git-lfs traces the answer of the batch: what stands there is ours, what arrived at the objects is the server's.
      expect(pulled.stderr).toMatch(/klp_[\w-]{43}/)
      expect(pulled.stderr).not.toContain('RemoteAuth ')
      expect(lfs.presented.slice(before).every((one) => lfs.handedOut.has(one))).toBe(true)
      expect(lfs.presented.length).toBe(before + 1)
    } finally {
      await writeFile(join(home, 'ca.pem'), (await site.gateway.control.status()).ca_pem)
      await holding.stop()
    }
  })

  // A refused object, in contrast, it asks for eight times more by itself (lfs.transfer.maxretries).
  it('says why when the batch is refused, at the first attempt', { timeout: 60_000 }, async () => {
    await git0(['clone', '--quiet', '--no-checkout', '--depth', '1', '--branch', 'media', url(), 'refused'])
    await git0(['-C', 'refused', 'lfs', 'install', '--local'])
    const before = git.requests.length
    const ended = await plainGit(['-C', 'refused', 'lfs', 'pull'], { as: reader })
    expect(ended.code).not.toBe(0)
    expect(ended.stdout + ended.stderr).toMatch(/grant does not cover this operation.*lfs\.batch/s)
    expect(git.requests.slice(before).filter((one) => one.includes('/lfs/'))).toEqual([])
  })
})

function basic(username: string, secret: string): string {
  return `Basic ${Buffer.from(`${username}:${secret}`).toString('base64')}`
}
