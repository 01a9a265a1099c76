/** What tools find in the files that a run makes for them: where to go, and no secret of the user's. */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { writeToolFiles } from '../../gateway/cli/run/tool-files.ts'
import type { Tool } from '../../gateway/protocol/service.ts'
import { newCanary } from '../rig/canary.ts'

const PROXY = 'http://agent:00ff@127.0.0.1:4711'
const secret = newCanary()

let home: string
let dir: string

beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), 'kl-home-'))
  dir = await mkdtemp(join(tmpdir(), 'kl-tools-'))
})
afterEach(async () => {
  await rm(home, { recursive: true, force: true })
  await rm(dir, { recursive: true, force: true })
})

const service = (tools: Tool[], more: object = {}) => ({
  name: 'svc',
  hosts: ['api.svc.test'],
  ports: [443],
  tools,
  credential_configured: true,
  ...more,
})
const written = (services: ReturnType<typeof service>[], inherited: Record<string, string> = {}) =>
  writeToolFiles({ dir, services, inherited, proxyUrl: PROXY, ca: 'PEM' })
const json = async (path = '') => JSON.parse(await readFile(path, 'utf8')) as Record<string, unknown>

/** Every file that the run made, and that nobody else can read it. */
async function everything(): Promise<string> {
  const names = (await readdir(dir, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile())
  const texts = await Promise.all(
    names.map(async ({ parentPath, name }) => {
      const path = join(parentPath, name)
      expect((await stat(path)).mode & 0o077, path).toBe(0)
      return readFile(path, 'utf8')
    }),
  )
  return texts.join('\n')
}

describe('tools', () => {
  it('are prepared only for a service that names them and has a credential', async () => {
    expect(await written([service([]), service(['docker'], { credential_configured: false })])).toEqual({})
    expect(await readdir(dir)).toEqual([])
  })

  it('that name credentials of their own are led to placeholders, and nothing of the user’s is copied', async () => {
    const docker = join(home, 'docker')
    const gcloud = join(home, 'gcloud')
    await mkdir(docker)
    await mkdir(join(gcloud, 'configurations'), { recursive: true })
    const auths = { 'api.svc.test': { auth: secret }, 'ghcr.io': { auth: secret } }
    const headers = { Authorization: secret }
    await writeFile(
      join(docker, 'config.json'),
      JSON.stringify({
        auths,
        credsStore: 'desktop',
        credHelpers: { x: 'y' },
        HttpHeaders: headers,
        currentContext: 'c',
      }),
    )
    await writeFile(join(gcloud, 'credentials.db'), secret)
    await writeFile(join(gcloud, 'active_config'), 'mine')
    await writeFile(
      join(gcloud, 'configurations', 'config_mine'),
      `[core]\nproject = p\n[auth]\naccess_token_file = ${secret}\n[proxy]\npassword = ${secret}\n[compute]\nzone = z\n`,
    )
    const npmrc = join(home, 'npmrc')
    await writeFile(
      npmrc,
      `registry=https://api.svc.test/\n//api.svc.test/:_authToken=${secret}\n_auth = ${secret}\n//x/:_password="${secret}"\nproxy=http://${secret}@corp\nnoproxy=*\nfund=false\n`,
    )
    const variables = await written([service(['docker', 'gcloud', 'npm', 'kubectl', 'pip'])], {
      DOCKER_CONFIG: docker,
      CLOUDSDK_CONFIG: gcloud,
      npm_config_userconfig: npmrc,
      KUBECONFIG: '/home/u/.kube/config',
    })
    expect(`${JSON.stringify(variables)}${await everything()}`).not.toContain(secret)
    expect(await json(join(variables.DOCKER_CONFIG ?? '', 'config.json'))).toEqual({
      currentContext: 'c',
      auths: { 'api.svc.test': { auth: Buffer.from('keyless:keyless-placeholder').toString('base64') } },
      proxies: { default: { httpProxy: PROXY, httpsProxy: PROXY, noProxy: 'localhost,127.0.0.1,::1' } },
    })
    const configuration = join(variables.CLOUDSDK_CONFIG ?? '', 'configurations', 'config_mine')
    expect(await readFile(configuration, 'utf8')).toBe('[core]\nproject = p\n[compute]\nzone = z\n')
    expect(existsSync(join(variables.CLOUDSDK_CONFIG ?? '', 'credentials.db'))).toBe(false)
    expect((await readFile(variables.npm_config_userconfig ?? '', 'utf8')).split('\n')).toEqual([
      'registry=https://api.svc.test/',
      'fund=false',
      '',
      '//api.svc.test/:_authToken=keyless-placeholder',
      '',
    ])
    expect(variables).toMatchObject({ PIP_NO_INPUT: '1', PIP_KEYRING_PROVIDER: 'disabled' })
  })
})

describe('a credential of the user\u2019s', () => {
  it.each([
    ['npmrc', '"//api.svc.test/:_authToken" = SECRET'],
    ['npmrc', "'//api.svc.test/:_authToken'=SECRET"],
    ['npmrc', '  //api.svc.test/:_AUTHTOKEN[] = SECRET'],
    ['npmrc', '//api.svc.test/:tokenHelper=/bin/echo SECRET'],
    ['npmrc', '_auth[]=SECRET'],
    ['docker', '{"Auths":{"ghcr.io":{"auth":"SECRET"}}}'],
    ['docker', '{"httpheaders":{"Authorization":"SECRET"}}'],
    ['docker', '{"CREDSSTORE":"SECRET"}'],
    ['gcloud', '[core]\nproject = p\n  [auth]\naccess_token_file = SECRET'],
    ['gcloud', '\t[proxy]\npassword = SECRET'],
  ])('is not copied from %s, though it is written %s', async (tool, text) => {
    const file = { npmrc: 'npmrc', docker: 'config.json', gcloud: 'configurations/config_default' }[tool] ?? ''
    await mkdir(join(home, 'configurations'))
    await writeFile(join(home, file), `${text.replaceAll('SECRET', secret.replaceAll('"', ''))}\n`)
    const own = { npm_config_userconfig: join(home, 'npmrc'), DOCKER_CONFIG: home, CLOUDSDK_CONFIG: home }
    await written([service([tool === 'npmrc' ? 'npm' : (tool as Tool)])], own)
    expect(await everything()).not.toContain(secret.replaceAll('"', ''))
  })
})

describe('kubectl', () => {
  it('finds a context for each cluster, with the gateway’s CA and a placeholder token', async () => {
    const { KUBECONFIG } = await written([
      service(['kubectl'], { name: 'prod', hosts: ['k8s.prod.test', '10.0.0.7'], ports: [6443] }),
      service(['kubectl'], { name: 'dev', hosts: ['k8s.dev.test'] }),
    ])
    const config = await json(KUBECONFIG)
    const ca = Buffer.from('PEM').toString('base64')
    expect(config.clusters).toEqual([
      { name: 'prod', cluster: { server: 'https://k8s.prod.test:6443', 'certificate-authority-data': ca } },
      { name: '10.0.0.7:6443', cluster: { server: 'https://10.0.0.7:6443', 'certificate-authority-data': ca } },
      { name: 'dev', cluster: { server: 'https://k8s.dev.test', 'certificate-authority-data': ca } },
    ])
    expect(config['current-context']).toBe('prod')
    expect(JSON.stringify(config.users)).toContain('keyless-placeholder')
  })
})

describe('git', () => {
  const git = (variables: Record<string, string>, ...args: string[]) =>
    execFileSync('git', args, {
      encoding: 'utf8',
      env: { PATH: process.env.PATH, HOME: home, GIT_CONFIG_NOSYSTEM: '1', ...variables },
    }).trim()

  it('turns SSH addresses of the service into https, and leaves the user’s own configuration in force', async () => {
    const own = { GIT_CONFIG_COUNT: '1', GIT_CONFIG_KEY_0: 'user.name', GIT_CONFIG_VALUE_0: 'Ana' }
    const variables = { ...own, ...(await written([service(['git'])], own)) }
    for (const url of ['git@api.svc.test:acme/site.git', 'ssh://git@api.svc.test/acme/site.git'])
      expect(git(variables, 'ls-remote', '--get-url', url)).toBe('https://api.svc.test/acme/site.git')
    expect(git(variables, 'ls-remote', '--get-url', 'git@elsewhere.test:a/b')).toBe('git@elsewhere.test:a/b')
    expect(git(variables, 'config', 'user.name')).toBe('Ana')
  })

  it('asks no credential helper of the user’s for the service', async () => {
    await writeFile(join(home, 'kept'), `password=${secret}\n`)
    await writeFile(join(home, '.gitconfig'), `[credential]\n\thelper = "!cat ${join(home, 'kept')}; :"\n`)
    const ask = (host: string, variables: Record<string, string>) => {
      const env = { PATH: process.env.PATH, HOME: home, GIT_TERMINAL_PROMPT: '0', GIT_ASKPASS: 'true', ...variables }
      const input = `protocol=https\nhost=${host}\nusername=u\n\n`
      return execFileSync('git', ['credential', 'fill'], {
        encoding: 'utf8',
        input,
        env,
        stdio: ['pipe', 'pipe', 'ignore'],
      })
    }
    const variables = await written([service(['git'])])
    expect(ask('api.svc.test', variables)).not.toContain(secret)
    expect(ask('elsewhere.test', variables)).toContain(secret)
  })
})

describe('Google’s libraries', () => {
  it('find credentials of the type authorized_user that need no refresh', async () => {
    const variables = await written([service(['gcloud'])], { CLOUDSDK_CONFIG: home })
    const adc = await json(variables.GOOGLE_APPLICATION_CREDENTIALS)
    expect(adc).toMatchObject({ type: 'authorized_user', refresh_token: 'keyless-placeholder' })
    expect(Date.parse(String(adc.expiry))).toBeGreaterThan(Date.now())
    expect(variables.CLOUDSDK_AUTH_ACCESS_TOKEN).toBe('keyless-placeholder')
  })
})
