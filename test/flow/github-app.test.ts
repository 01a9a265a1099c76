/** A GitHub App behind the gateway: Octokit and git, unmodified, each call with a token for its repository and permission alone. */
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Octokit } from '@octokit/rest'
import { ProxyAgent, fetch as undiciFetch } from 'undici'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import type { ServiceFile } from '../../gateway/policy/catalogue/catalogue.ts'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { CLIENT_ID, type FakeGithub, startGithub } from '../provider/github.fixture.ts'
import { type GitServer, startGit } from '../rig/git.ts'
import { run } from '../rig/process.ts'

let github: FakeGithub
let api: Server
let git: GitServer
let site: OpenSite
let work: string
/** Bearer tokens that the API was shown. */
const shown: string[] = []

const portOf = (server: Server) => (server.address() as AddressInfo).port

beforeAll(async () => {
  github = await startGithub()
  const tls = await throwAwayTls(['api.github.com', 'uploads.github.com', 'github.com'])
  api = createServer({ key: tls.key, cert: tls.cert }, (request, response) => {
    const token = request.headers.authorization?.replace(/^Bearer /, '') ?? ''
    shown.push(token)
    const [, , owner = '', name = '', what = 'metadata'] = (request.url ?? '').split('?')[0]?.split('/') ?? []
    const level = request.method === 'GET' ? 'read' : 'write'
    const isAllowed = github.allows(token, `${owner}/${name}`, what, level)
    response.writeHead(isAllowed ? 200 : 403, { 'content-type': 'application/json' })
    response.end(
      JSON.stringify(isAllowed ? { name, token: 'none' } : { message: 'Resource not accessible by integration' }),
    )
  })
  api.listen(0, '127.0.0.1')
  await once(api, 'listening')
  git = await startGit({
    password: 'none',
    tls,
    accepts: (token, { url = '' }) =>
      github.allows(token, 'acme/site', 'contents', url.includes('receive-pack') ? 'write' : 'read'),
  })
  work = await mkdtemp(join(tmpdir(), 'keyless-github-app-'))
  await writeFile(join(work, 'app.pem'), github.privateKey.export({ type: 'pkcs1', format: 'pem' }))
  const shipped: ServiceFile = parse(
    await readFile(new URL('../../policies/services/github.yaml', import.meta.url), 'utf8'),
  )
  const credential = {
    provider: 'github_app',
    client_id: CLIENT_ID,
    private_key: { file: join(work, 'app.pem') },
    api_url: github.url,
    addresses: ['127.0.0.1/32'],
  }
  site = await openSite(
    { port: portOf(api), caPem: tls.caPem },
    { services: [{ ...shipped, ports: [portOf(api), git.port] }], credentials: { github: credential } },
  )
  await writeFile(join(work, 'ca.pem'), (await site.gateway.control.status()).ca_pem)
}, 60_000)

afterAll(async () => {
  await site.stop()
  await git.stop()
  await github.stop()
  api.closeAllConnections()
  api.close()
  await rm(work, { recursive: true, force: true })
})

function octokit({ task, handle }: OpenedTask, ca: string): Octokit {
  const token = `Basic ${Buffer.from(`${task}:${handle}`).toString('base64')}`
  const dispatcher = new ProxyAgent({ uri: `http://127.0.0.1:${site.gateway.proxyPort}`, token, requestTls: { ca } })
  const fetch = (url: string, init: object) => undiciFetch(url, { ...init, dispatcher })
  const log = { debug() {}, info() {}, warn() {}, error() {} }
  return new Octokit({ baseUrl: `https://api.github.com:${portOf(api)}`, auth: 'placeholder', log, request: { fetch } })
}

const ca = () => readFile(join(work, 'ca.pem'), 'utf8')
const at = { owner: 'Acme', repo: 'site' }

describe('a GitHub App', () => {
  it('reads and writes with tokens of their own, shares them between calls, and they end with the task', async () => {
    const task = await site.gateway.openTask('github:issues.* github:repos.read')
    const client = octokit(task, await ca())
    await client.issues.get({ ...at, issue_number: 7 })
    await client.issues.get({ owner: 'ACME', repo: 'Site', issue_number: 8 })
    await client.issues.create({ ...at, title: 'a' })
    await client.repos.get({ owner: 'acme', repo: 'tools' })
    const [first, second, third, fourth] = shown.map((token) => github.tokens.get(token))
    expect(second).toBe(first)
    expect(first).toMatchObject({ permissions: { issues: 'read', metadata: 'read' }, repositories: ['Acme/Site'] })
    expect(third).toMatchObject({ permissions: { issues: 'write', metadata: 'read' }, repositories: ['Acme/Site'] })
    expect(fourth).toMatchObject({ permissions: { metadata: 'read' }, repositories: ['Acme/tools'] })
    await site.gateway.control.completeTask(task.task)
    await expect.poll(() => [...github.tokens.values()].every(({ isRevoked }) => isRevoked)).toBe(true)
    const entries = await entriesOf(site.gateway.settings.dataDir)
    const issued = entries.filter(({ kind }) => kind === 'lease.issued')
    expect(issued).toHaveLength(3)
    expect(JSON.stringify(entries)).not.toContain('ghs_')
  })

  it('gives nothing for a repository that it is not installed on, and says so in the words of GitHub', async () => {
    const client = octokit(await site.gateway.openTask('github:*'), await ca())
    const before = shown.length
    const error = await client.issues.get({ owner: 'initech', repo: 'site', issue_number: 7 }).catch((cause) => cause)
    expect(error.status).toBe(502)
    expect(error.message).toContain('not installed')
    expect(shown).toHaveLength(before)
  })

  it('clones and pushes over HTTPS with contents of the one repository', { timeout: 30_000 }, async () => {
    const task = await site.gateway.openTask('github:git.*')
    const env = {
      PATH: process.env.PATH,
      HOME: work,
      GIT_CONFIG_NOSYSTEM: '1',
      GIT_TERMINAL_PROMPT: '0',
      GIT_SSL_CAINFO: join(work, 'ca.pem'),
      https_proxy: `http://${task.task}:${task.handle}@127.0.0.1:${site.gateway.proxyPort}`,
    }
    const whoever = ['-c', 'user.name=a', '-c', 'user.email=a@keyless.test']
    const at = (...args: string[]) => run('git', [...whoever, ...args], { cwd: work, timeoutMs: 20_000, env })
    const origin = `https://github.com:${git.port}/acme/site.git`
    const steps = [
      ['clone', '--quiet', origin, 'site'],
      ['-C', 'site', 'commit', '--quiet', '--allow-empty', '--message', 'a'],
      ['-C', 'site', 'push', '--quiet', 'origin', 'HEAD:main'],
      ['ls-remote', origin],
    ]
    for (const step of steps) {
      const ended = await at(...step)
      expect(ended.code, ended.stderr).toBe(0)
    }
    const used = [...git.authorizations.keys()].map((field) => {
      const [, token = ''] = Buffer.from(field.slice(6), 'base64').toString().split(':')
      return github.tokens.get(token)?.permissions.contents
    })
    expect(used.sort()).toEqual(['read', 'write'])
    // Another repository has another token: the app is not installed there.
    expect((await at('ls-remote', origin.replace('acme/site', 'initech/site'))).stderr).toContain('not installed')
  })
})
