/** What docker-compose.yml and the Dockerfile promise, where it can be read off them. deploy/compose-test.sh tries it for real. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { ROOT } from '../rig/process.ts'

interface ComposeService {
  readonly image: string
  readonly build?: { readonly target: string }
  readonly read_only?: boolean
  readonly cap_drop?: readonly string[]
  readonly security_opt?: readonly string[]
  readonly privileged?: boolean
  readonly ports?: readonly string[]
  readonly volumes?: readonly string[]
  readonly networks?: readonly string[] | Readonly<Record<string, unknown>>
}

interface Compose {
  readonly services: Readonly<Record<string, ComposeService>>
  readonly networks: Readonly<Record<string, { readonly internal?: boolean }>>
}

const text = (file: string) => readFileSync(join(ROOT, file), 'utf8')
const compose = parse(text('docker-compose.yml'), { merge: true }) as Compose
const networksOf = (service: ComposeService | undefined) =>
  Array.isArray(service?.networks) ? service.networks : Object.keys(service?.networks ?? {})

describe('docker-compose.yml', () => {
  it.each(Object.entries(compose.services))('gives %s nothing it does not need', (_name, service) => {
    expect(service).toMatchObject({ read_only: true, cap_drop: ['ALL'], security_opt: ['no-new-privileges:true'] })
    expect(service.privileged).toBeUndefined()
    expect(service.ports ?? []).toEqual([])
  })

  it('leaves the agent one way out, and no secret', () => {
    const agent = compose.services.agent
    expect(networksOf(agent)).toEqual(['agents'])
    expect(compose.networks.agents?.internal).toBe(true)
    expect(agent?.volumes).toEqual(['trust:/trust:ro'])
    const neighbours = Object.entries(compose.services).filter(([, service]) => networksOf(service).includes('agents'))
    expect(neighbours.map(([name]) => name).sort()).toEqual(['agent', 'gateway-1', 'gateway-2'])
  })

  it('keeps the state of the replicas to themselves', () => {
    const [one, two] = ['gateway-1', 'gateway-2'].map((name) => compose.services[name]?.volumes ?? [])
    const data = (volumes: readonly string[] | undefined) => volumes?.find((volume) => volume.endsWith(':/data'))
    expect(data(one)).not.toBe(data(two))
    expect(one).toContain('demo:/demo:ro')
    for (const volumes of [one, two])
      expect(volumes?.filter((volume) => volume.includes(':/keys'))).toEqual(['keys:/keys:ro', 'humans:/keys/personal'])
  })

  it('shows the witness of their logs public keys alone, and the index to nobody but them', () => {
    const { witness, postgres } = compose.services
    expect(witness?.volumes).toEqual(['witness:/data', 'trust:/trust:ro'])
    expect(networksOf(witness)).toEqual(['witness'])
    expect(networksOf(postgres)).toEqual(['state'])
    for (const network of ['witness', 'state']) expect(compose.networks[network]?.internal).toBe(true)
    expect(text('docker-compose.yml')).not.toMatch(/PASSWORD: |PASSWORD=(?!\$\$\(cat )/)
  })
})

describe('deploy/Dockerfile', () => {
  const stages = text('deploy/Dockerfile')
    .split(/^FROM /m)
    .slice(1)
    .map((stage) => ({ name: / AS (\S+)/.exec(stage)?.[1] ?? '', body: stage }))

  it.each(['gateway', 'demo-upstream', 'agent'])('builds %s for a user that is not root', (target) => {
    const stage = stages.find(({ name }) => name === target)
    expect(stage?.body).toMatch(/^USER (?!0\b)\d+:\d+$/m)
  })

  it('puts no development tools into the gateway', () => {
    expect(stages.find(({ name }) => name === 'gateway')?.body).toContain('COPY --from=dependencies')
    expect(stages.find(({ name }) => name === 'dependencies')?.body).toContain('npm ci --omit=dev')
  })

  it('sends the builder only what the images hold', () => {
    const allowed = text('.dockerignore')
      .split('\n')
      .filter((line) => line.startsWith('!'))
    const copied = [...text('deploy/Dockerfile').matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap((match) =>
      (match[1] ?? '').split(' '),
    )
    expect(text('.dockerignore')).toMatch(/^\*$/m)
    expect(new Set(allowed.map((line) => line.slice(1)))).toEqual(new Set(copied))
  })
})
