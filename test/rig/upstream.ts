/** The demo's authorization server and API, on free ports, for one test file. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseDocument, stringify } from 'yaml'
import {
  API_HOST,
  type DemoOptions,
  type DemoUpstream,
  ISSUER_HOST,
  startDemoUpstream,
} from '../../deploy/demo/upstream.ts'

export interface TestUpstream extends DemoUpstream {
  /** Where the CA and the client secrets lie. */
  readonly dir: string
  /** The lines of `keyless.yaml` that lead to this upstream: service, credential, CA, host names. */
  settings(options?: UpstreamSettings): Promise<string>
}

export interface UpstreamSettings {
  /** Default `client_secret_basic`. */
  readonly clientAuth?: 'client_secret_basic' | 'client_secret_post' | 'private_key_jwt'
  /** Default: all that the client may have. */
  readonly scope?: string
}

export async function startUpstream(options: Omit<DemoOptions, 'dir'> = {}): Promise<TestUpstream> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-upstream-'))
  const demo = await startDemoUpstream({ ...options, dir })
  // Delegates: a copy of the object would freeze its counters.
  return Object.assign(Object.create(demo) as DemoUpstream, {
    dir,
    settings: async (wanted: UpstreamSettings = {}) => settingsYaml(demo, await writeService(demo, dir), wanted),
    async stop() {
      await demo.stop()
      await rm(dir, { recursive: true, force: true })
    },
  })
}

/** The shipped demo service on the port of this upstream. */
async function writeService(demo: DemoUpstream, dir: string): Promise<string> {
  const shipped = await readFile(new URL('../../policies/services/demo.yaml', import.meta.url), 'utf8')
  const service = parseDocument(shipped)
  service.set('ports', [demo.apiPort])
  const file = join(dir, 'demo.yaml')
  await writeFile(file, service.toString())
  return file
}

function settingsYaml({ facts }: DemoUpstream, serviceFile: string, { clientAuth, scope }: UpstreamSettings): string {
  return stringify({
    services: [serviceFile],
    credentials: {
      demo: {
        provider: 'oauth_client_credentials',
        token_url: facts.token_url,
        ...clientOf(facts, clientAuth ?? 'client_secret_basic'),
        scope: scope ?? facts.scope,
        addresses: ['127.0.0.1/32'],
      },
    },
    upstream: { ca: [facts.ca_file], hosts: { [API_HOST]: '127.0.0.1', [ISSUER_HOST]: '127.0.0.1' } },
  })
}

function clientOf(facts: DemoUpstream['facts'], clientAuth: NonNullable<UpstreamSettings['clientAuth']>): object {
  switch (clientAuth) {
    case 'client_secret_basic':
      return { client_id: facts.client_id, client_auth: clientAuth, client_secret: { file: facts.client_secret_file } }
    case 'client_secret_post':
      return {
        client_id: facts.post_client_id,
        client_auth: clientAuth,
        client_secret: { file: facts.post_client_secret_file },
      }
    case 'private_key_jwt':
      return { client_id: facts.jwt_client_id, client_auth: clientAuth, kid: facts.kid, key: { file: facts.key_file } }
    default:
      return clientAuth satisfies never
  }
}
