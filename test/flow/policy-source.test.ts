/**
 * Policies from a signed bundle, taken up while the gateway runs: a newer one decides from the next call on, and whatever is not
 * signed, older, changed or half there leaves the one before in force.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { codeOf, reverse } from '../invariant/agent.fixture.ts'
import { entriesOf, type Site, writeSite } from '../invariant/services.fixture.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { ALLOW_ALL, emptied, NO_POSTS, newSigner, writeBundle } from './policy.fixture.ts'

const signer = newSigner()
const stranger = newSigner()
const run = promisify(execFile)

let echo: EchoUpstream
let site: Site
let bundles: string
let gateway: TestGateway | undefined

beforeAll(async () => {
  echo = await startEcho()
  const operations = {
    get: { match: ['GET /{mood}'], access: 'read' },
    post: { match: ['POST /{mood}'], access: 'write' },
  } as never
  site = await writeSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    { services: [{ name: 'echo', operations }], credentials: { echo: 'a-standing-key-of-some-length' } },
  )
  bundles = await mkdtemp(join(tmpdir(), 'keyless-bundles-'))
})

afterEach(async () => {
  await gateway?.stop()
  gateway = undefined
})

afterAll(async () => {
  await echo.stop()
  await site.remove()
  await rm(bundles, { recursive: true, force: true })
})

const policyYaml = (source: object, more: object = {}) =>
  `${site.yaml}${stringify({ policy: { source, keys: [signer.pem], poll_s: 3600, ...more } })}`

async function open(source: object, more?: object, reuse?: { dir: string }): Promise<TestGateway> {
  gateway = await startGateway(policyYaml(source, more), reuse)
  return gateway
}

/** Codes of a GET and a POST under a grant that covers both. */
async function answers(at: TestGateway, handle: string): Promise<readonly string[]> {
  const ask = async (method: string) => {
    const { status, bytes } = await reverse(at.proxyPort, handle, { method, path: '/echo/echo' })
    return status === 200 ? 'ok' : (codeOf({ status, bytes }) ?? String(status))
  }
  return [await ask('GET'), await ask('POST')]
}

const kinds = async (at: TestGateway, kind: string) =>
  (await entriesOf(at.settings.dataDir)).filter((entry) => entry.kind === kind).map(({ facts }) => facts)

const version = async (at: TestGateway) => (await at.control.policy()).source?.bundle?.version

describe('a signed bundle in a directory', () => {
  it('decides from the next call on, and everything else that is offered leaves it in force', async () => {
    const dir = await emptied(join(bundles, 'dir'))
    await writeBundle(dir, { files: { 'a.cedar': ALLOW_ALL }, version: 7 }, signer)
    const at = await open({ dir })
    const { handle } = await at.openTask('echo:*')
    expect(await answers(at, handle)).toEqual(['ok', 'ok'])

    await writeBundle(dir, { files: { 'a.cedar': NO_POSTS }, version: 8 }, signer)
    expect(await at.control.reloadPolicy()).not.toHaveProperty('trouble')
    expect(await answers(at, handle)).toEqual(['ok', 'policy_denied'])

    const bad: [string, () => Promise<void>, RegExp][] = [
      ['unsigned', () => writeBundle(dir, { files: { 'a.cedar': ALLOW_ALL }, version: 9 }, stranger), /no signature/],
      ['older', () => writeBundle(dir, { files: { 'a.cedar': ALLOW_ALL }, version: 7 }, signer), /older than 8/],
      [
        'another of the same version',
        () => writeBundle(dir, { files: { 'a.cedar': ALLOW_ALL }, version: 8 }, signer),
        /another version 8/,
      ],
      [
        'faulty',
        () => writeBundle(dir, { files: { 'a.cedar': 'permit (principal' }, version: 9 }, signer),
        /a\.cedar:1/,
      ],
      [
        'over',
        () => writeBundle(dir, { files: { 'a.cedar': ALLOW_ALL }, version: 9, notAfter: 1000 }, signer),
        /valid until 1970/,
      ],
      [
        'half there',
        async () => {
          await writeBundle(dir, { files: { 'a.cedar': ALLOW_ALL }, version: 9 }, signer)
          await writeFile(join(dir, 'a.cedar'), `${ALLOW_ALL} `)
        },
        /not what was signed/,
      ],
      [
        'missing',
        async () => {
          await writeBundle(dir, { files: { 'a.cedar': ALLOW_ALL }, version: 9 }, signer)
          await rm(join(dir, 'a.cedar'))
        },
        /cannot be read/,
      ],
      ['no manifest', () => rm(join(dir, 'bundle.dsse.json')), /gives nothing/],
    ]
    for (const [what, offer, why] of bad) {
      await offer()
      const { trouble } = await at.control.reloadPolicy()
      expect(trouble, what).toMatch(why)
      expect(await version(at), what).toBe(8)
    }
    expect(await answers(at, handle)).toEqual(['ok', 'policy_denied'])
    expect(at.gateway.house.policies.refused).toBe(bad.length)
    expect((await kinds(at, 'policy.refused')).map((facts) => facts?.reason)).toEqual(
      bad.map(([, , why]) => expect.stringMatching(why)),
    )
    expect((await kinds(at, 'policy.loaded')).map((facts) => facts?.version)).toEqual([undefined, 7, 8])
  })

  it('still decides after a restart without its source, and nothing older does when that is back', async () => {
    const dir = await emptied(join(bundles, 'restart'))
    const home = await mkdtemp(join(tmpdir(), 'keyless-home-'))
    await writeBundle(dir, { files: { 'a.cedar': NO_POSTS }, version: 3 }, signer)
    await (await open({ dir }, {}, { dir: home })).stop()
    await emptied(dir)

    let at = await open({ dir }, {}, { dir: home })
    const { handle } = await at.openTask('echo:*')
    expect(await answers(at, handle)).toEqual(['ok', 'policy_denied'])
    expect((await at.control.policy()).trouble).toMatch(/gives nothing/)
    await writeBundle(dir, { files: { 'a.cedar': ALLOW_ALL }, version: 2 }, signer)
    expect((await at.control.reloadPolicy()).trouble).toMatch(/older than 3/)
    await at.stop()

    // Whoever can write to its data directory has it refuse, and nothing else.
    const kept = join(home, 'data', 'policy', 'in-force.json')
    await writeFile(kept, (await readFile(kept, 'utf8')).replace('forbid', 'permit'))
    at = await open({ dir }, {}, { dir: home })
    await expect(at.openTask('echo:*')).rejects.toMatchObject({ code: 'policy_denied' })
    expect(at.gateway.house.policies.view).toMatchObject({ policies: 0 })
    await at.stop()
    gateway = undefined
    await rm(home, { recursive: true })
  })

  it('denies everything while there is none, says so, and takes the first that comes', async () => {
    const dir = await emptied(join(bundles, 'late'))
    const at = await open({ dir })
    await expect(at.openTask('echo:*')).rejects.toMatchObject({ code: 'policy_denied' })
    expect(await fetch(`${at.gateway.control}/health/ready`).then((answer) => answer.status)).toBe(503)
    await writeBundle(dir, { files: { 'a.cedar': ALLOW_ALL }, version: 1 }, signer)
    await at.control.reloadPolicy()
    const { handle } = await at.openTask('echo:*')
    expect(await answers(at, handle)).toEqual(['ok', 'ok'])
    expect(await fetch(`${at.gateway.control}/health/ready`).then((answer) => answer.status)).toBe(200)
  })

  it('ends with its keys: what no trusted key stands for any more decides nothing', async () => {
    const dir = await emptied(join(bundles, 'keys'))
    await writeBundle(dir, { files: { 'a.cedar': ALLOW_ALL }, version: 1 }, signer)
    const at = await open({ dir })
    const { handle } = await at.openTask('echo:*')
    const file = join(at.dir, 'keyless.yaml')
    const yaml = await readFile(file, 'utf8')
    await writeFile(file, yaml.replace(policyYaml({ dir }), policyYaml({ dir }, { keys: [stranger.pem] })))
    expect((await at.control.reloadPolicy()).policies).toBe(0)
    expect(await answers(at, handle)).toEqual(['policy_denied', 'policy_denied'])
    await writeBundle(dir, { files: { 'a.cedar': ALLOW_ALL }, version: 2 }, stranger)
    expect((await at.control.reloadPolicy()).source?.bundle?.version).toBe(2)
    expect(await answers(at, handle)).toEqual(['ok', 'ok'])
  })
})

describe('a bundle elsewhere', () => {
  it('is fetched over HTTP, and not again while its entity tag is the same', async () => {
    const dir = await emptied(join(bundles, 'http'))
    await writeBundle(dir, { files: { 'a.cedar': ALLOW_ALL }, version: 1 }, signer)
    const asked: [string, string | undefined, number][] = []
    const server: Server = createServer((request, response) => {
      const path = request.url ?? ''
      const isAuthorised = request.headers.authorization === 'Bearer of-the-policies'
      readFile(join(dir, path.replace('/prod/', ''))).then(
        (body) => {
          const etag = `"${body.length}"`
          const status = !isAuthorised ? 401 : request.headers['if-none-match'] === etag ? 304 : 200
          asked.push([path, request.headers['if-none-match'], status])
          response.writeHead(status, { etag }).end(status === 200 ? body : undefined)
        },
        () => response.writeHead(404).end(),
      )
    })
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/prod`
      process.env.POLICY_TOKEN_OF_TEST = 'Bearer of-the-policies'
      const headers = { authorization: { env: 'POLICY_TOKEN_OF_TEST' } }
      const at = await open({ url, headers, addresses: ['127.0.0.1/32'] })
      const { handle } = await at.openTask('echo:*')
      expect(await answers(at, handle)).toEqual(['ok', 'ok'])
      await at.control.reloadPolicy()
      expect(asked.map(([path, , status]) => `${path} ${status}`)).toEqual([
        '/prod/bundle.dsse.json 200',
        '/prod/a.cedar 200',
        '/prod/bundle.dsse.json 304',
      ])
      await writeBundle(dir, { files: { 'a.cedar': NO_POSTS, 'more/b.cedar': ALLOW_ALL }, version: 2 }, signer)
      expect(await at.control.reloadPolicy()).not.toHaveProperty('trouble')
      expect(await answers(at, handle)).toEqual(['ok', 'policy_denied'])
      expect(await version(at)).toBe(2)
    } finally {
      delete process.env.POLICY_TOKEN_OF_TEST
      server.closeAllConnections()
      server.close()
    }
  })

  it('ends when its time is over, although the source keeps whoever asks waiting', async () => {
    const dir = await emptied(join(bundles, 'slow'))
    const notAfter = Math.floor(Date.now() / 1000) + 3
    await writeBundle(dir, { files: { 'a.cedar': ALLOW_ALL }, version: 1, notAfter }, signer)
    let isSilent = false
    const server: Server = createServer((request, response) => {
      if (!isSilent) void readFile(join(dir, request.url ?? '')).then((body) => response.end(body))
    })
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
      const at = await open({ url, addresses: ['127.0.0.1/32'] }, { poll_s: 1 })
      isSilent = true
      const { handle } = await at.openTask('echo:*')
      await expect.poll(() => answers(at, handle), { timeout: 15_000 }).toEqual(['policy_denied', 'policy_denied'])
      expect(Date.now() / 1000 - notAfter).toBeLessThan(6)
    } finally {
      server.closeAllConnections()
      server.close()
    }
  }, 20_000)

  it('is fetched from a git repository, of which nothing is run or checked out', async () => {
    const work = await emptied(join(bundles, 'work'))
    const git = (...args: string[]) =>
      run('git', ['-C', work, '-c', 'user.name=t', '-c', 'user.email=t@keyless.test', ...args], {
        env: { PATH: process.env.PATH, HOME: bundles },
      })
    await git('init', '--quiet', '--initial-branch=main')
    const commit = async (text: string, n: number) => {
      await writeBundle(join(work, 'policies'), { files: { 'a.cedar': text }, version: n }, signer)
      await git('add', '-A')
      await git('commit', '--quiet', '-m', `version ${n}`)
    }
    await commit(ALLOW_ALL, 1)
    const at = await open({ git: { url: `file://${work}`, path: 'policies' } })
    const { handle } = await at.openTask('echo:*')
    expect(await answers(at, handle)).toEqual(['ok', 'ok'])
    await commit(NO_POSTS, 2)
    expect(await at.control.reloadPolicy()).not.toHaveProperty('trouble')
    expect(await answers(at, handle)).toEqual(['ok', 'policy_denied'])
    const { stdout } = await git('rev-parse', 'HEAD')
    expect((await at.control.policy()).source?.bundle?.revision).toBe(stdout.trim())

    // An older commit is still signed, and still refused.
    await git('reset', '--quiet', '--hard', 'HEAD~1')
    expect((await at.control.reloadPolicy()).trouble).toMatch(/older than 2/)
    expect(await version(at)).toBe(2)
  })
})
