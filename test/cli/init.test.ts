import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { init } from '../../gateway/cli/init.ts'
import { settingsTemplate } from '../../gateway/cli/init-template.ts'
import { loadCatalogue } from '../../gateway/policy/catalogue/catalogue.ts'
import { loadSettings, parseSettings, settingsJsonSchema } from '../../gateway/settings.ts'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'kl-init-'))
})
afterEach(() => {
  vi.unstubAllEnvs()
  return rm(dir, { recursive: true, force: true })
})

const written = () => readFile(join(dir, 'keyless.yaml'), 'utf8')

describe('keyless init', () => {
  it('writes a file that loads without errors, and its schema beside it', async () => {
    await init({ dir })
    expect((await loadSettings(join(dir, 'keyless.yaml'))).services).toEqual([])
    expect(await written()).toMatch(/^# yaml-language-server: \$schema=\.\/keyless\.schema\.json\n/)
    expect(JSON.parse(await readFile(join(dir, 'keyless.schema.json'), 'utf8'))).toEqual(
      JSON.parse(JSON.stringify(settingsJsonSchema())),
    )
  })

  it('fills in the services asked for, each with the variable its own tools read', async () => {
    const said = await init({ dir, service: ['github', 'openai', 'github'] })
    const settings = await loadSettings(join(dir, 'keyless.yaml'))
    expect(settings.services).toEqual(['github', 'openai'])
    expect(settings.credentials).toEqual({
      github: { provider: 'static', value: { env: 'GITHUB_TOKEN' } },
      openai: { provider: 'static', value: { env: 'OPENAI_API_KEY' } },
    })
    expect(said).toContain('GITHUB_TOKEN')
  })

  it('writes for every shipped service what the gateway starts with', async () => {
    const shippedDir = fileURLToPath(new URL('../../policies/services', import.meta.url))
    const shipped = (await readdir(shippedDir)).map((file) => file.slice(0, -5))
    await init({ dir, service: shipped })
    const { services, credentials } = await loadSettings(join(dir, 'keyless.yaml'))
    const catalogue = await loadCatalogue({ services, baseDir: dir, shippedDir })
    expect(catalogue.services.map(({ name }) => name).sort()).toEqual(shipped.sort())
    for (const { name, credential } of catalogue.services)
      expect({ name, is: credentials[credential ?? ''] }).not.toEqual({ name, is: undefined })
    expect(credentials.aws).toMatchObject({ provider: 'aws', session: 'none' })
  })

  it('says which service was meant, and writes nothing', async () => {
    await expect(init({ dir, service: ['githb'] })).rejects.toThrow(/Did you mean github\? There are: anthropic/)
    await expect(stat(join(dir, 'keyless.yaml'))).rejects.toThrow('ENOENT')
  })

  it('says what to type next as it was typed itself: through npx, or by its own name', async () => {
    vi.stubEnv('npm_command', 'exec')
    expect(await init({ dir })).toContain('\n  npx keyless start')
    vi.stubEnv('npm_command', undefined)
    expect(await init({ dir, force: true })).toContain('\n  keyless start')
  })

  it('makes the directory that it is told to write into', async () => {
    await init({ dir: join(dir, 'team', 'gateway') })
    expect((await loadSettings(join(dir, 'team', 'gateway', 'keyless.yaml'))).services).toEqual([])
  })

  it('does not replace a file unless told to', async () => {
    await writeFile(join(dir, 'keyless.yaml'), 'tenant: mine\n')
    await expect(init({ dir })).rejects.toThrow(/--force/)
    expect(await written()).toBe('tenant: mine\n')
    await init({ dir, force: true })
    expect(await written()).toContain('services: []')
  })

  it('shows only settings that exist, with values that are allowed', () => {
    const uncommented = settingsTemplate([])
      .split('\n')
      .filter((line) => !/^# (?:[A-Z]|yaml)|^#$/.test(line))
      .map((line) => line.replace(/^# /, ''))
      .map(
        (line) =>
          line
            .replace('{ env: REDIS_URL }', 'redis://localhost:6379')
            .replace('{ env: CORPORATE_PROXY }', 'http://proxy.corp.example:3128')
            .replace('proxy_tls: { cert: ./door.pem, key: ./door.key }', '') // files that are not there
            .replace('[./internal-root.pem]', '[]')
            .replace(/^ {2}(?:source: \{ git|keys: ).*/, ''), // instead of `policies`, with a key that is not there
      )
      .join('\n')
    const settings = parseSettings(uncommented, '/base')
    expect(Object.keys(settings.credentials)).toEqual(['slack', 'billing', 'mail', 'openai', 'github', 'aws', 'orders'])
    expect(settings.agents[0].id).toBe('spiffe://example.com/agents/triage')
    expect(settings.trust.issuers.map(({ kind }) => kind)).toEqual(['human', 'github-actions'])
    expect(settings.grants.heartbeatS).toBe(15)
    expect([...settings.approvals.groups.keys()]).toEqual(['on-call'])
    const unset = parseSettings('{}', '/base')
    expect([settings.limits, settings.ca]).toEqual([unset.limits, unset.ca])
    expect(settings.upstream.hosts.get('billing.internal')).toBe('10.0.0.7')
  })

  it('is what keyless.example.yaml shows, for two services', async () => {
    const example = await readFile(new URL('../../keyless.example.yaml', import.meta.url), 'utf8')
    expect(example).toBe(
      settingsTemplate([
        { name: 'github', env: 'GITHUB_TOKEN' },
        { name: 'openai', env: 'OPENAI_API_KEY' },
      ]),
    )
  })
})
