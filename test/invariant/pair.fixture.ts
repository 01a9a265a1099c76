/** Two gateways on one real Redis before one upstream that counts what it gets, and agents that pass grants on. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { thumbprintOf } from '../../gateway/grant/chain/jws.ts'
import { signAttestation } from '../../gateway/grant/holder.ts'
import type { DelegateBody, IssuedView, OpenTaskBody } from '../../gateway/protocol/control.ts'
import type { Authority } from '../../gateway/protocol/grant.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { type Answer, codeOf, reverse } from './agent.fixture.ts'
import { type Wanted, writeSite } from './services.fixture.ts'

export const ISSUER = 'http://gateway.keyless.test'
export const LEVELS = ['lead', 'mid', 'leaf', 'deep', 'deeper', 'e', 'f', 'g', 'h'] as const
export const idOf = (name: (typeof LEVELS)[number]) => `spiffe://test/agent/${name}`

export interface Pair {
  readonly upstream: EchoUpstream
  readonly redis: TestRedis
  readonly replicas: readonly [TestGateway, TestGateway]
  /** Settings of both. */
  readonly yaml: string
  stop(): Promise<void>
}

/** The service `notes`: `read` and `write` of `/echo/{owner}`, `wipe`, which policy lets through once, `take`, `pour`, `hold`. */
export async function openPair(changes: Partial<Wanted> = {}): Promise<Pair> {
  const names = (changes.services ?? [{ name: 'notes' }]).map(({ name }) => `${name}.keyless.test`)
  const [upstream, redis] = await Promise.all([startEcho({ names }), startRedis()])
  const site = await writeSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [
        {
          name: 'notes',
          operations: {
            read: { match: ['GET /echo/{owner}'], access: 'read' },
            write: { match: ['POST /echo/{owner}'], access: 'write' },
            wipe: { match: ['DELETE /echo/{owner}'], access: 'write' },
            pour: { match: ['GET /stream'], access: 'read' },
            hold: { match: ['GET /hang-body'], access: 'read' },
          },
        },
      ],
      credentials: { notes: 'a-standing-key-of-some-length' },
      policies: {
        text: '@id("wipe-once") @owner("test") @single_use("true") permit (principal, action == Action::"notes:wipe", resource);',
      },
      ...changes,
    },
  )
  const keys = join(site.dir, 'keys')
  await mkdir(keys, { mode: 0o700 })
  const { settings } = changes
  const labels = (name: string) => (name === 'leaf' ? ', labels: [reader]' : '')
  const agents = LEVELS.map((name) => `{ id: "${idOf(name)}", owner: ana, purpose: test${labels(name)} }`).join(', ')
  const own = `keys_dir: ${keys}\npublic_url: ${ISSUER}\nredis: { url: "${redis.url}" }\nagents: [${agents}]\n`
  const yaml = `${site.yaml}${own}${settings?.grants === undefined ? 'grants: { max_depth: 8 }\n' : ''}`
  const replicas = [await startGateway(yaml), await startGateway(yaml)] as const
  return {
    upstream,
    redis,
    replicas,
    yaml,
    async stop() {
      redis.resume?.()
      for (const replica of replicas) await replica.stop()
      await Promise.all([upstream.stop(), redis.stop(), site.remove()])
    },
  }
}

export const READ = '/notes/echo/acme'

export const call = ({ proxyPort }: TestGateway, handle: string, path = READ, method = 'GET', fields?: string) =>
  reverse(proxyPort, handle, {
    method,
    path,
    fields: `Authorization: Bearer ${handle}\r\n${method === 'POST' ? 'Content-Length: 0\r\n' : ''}${fields ?? ''}`,
  })

/** `200`, or the code of the refusal. */
export const said = (answer: Answer) => codeOf(answer) ?? answer.status

export const detailsOf = (...entries: readonly Authority[]) =>
  entries.map((entry) => ({ type: 'keyless_access', ...entry }))

export const open = ({ control }: TestGateway, body: Partial<OpenTaskBody> = {}) =>
  control.openTask({ agent: idOf('lead'), scope: 'notes:*', purpose: 'lose', ...body })

export const delegate = ({ control }: TestGateway, parent: IssuedView, body: Partial<DelegateBody> = {}) =>
  control.delegate({ parent: parent.handle ?? parent.grant, agent: idOf('mid'), ...body })

/** What the holder of a grant says over TCP, where it is nobody but its holder. */
export async function asHolder({ gateway }: TestGateway, handle: string, path: string, body: object = {}) {
  const answer = await fetch(gateway.control + path, {
    method: 'POST',
    headers: { authorization: `Bearer ${handle}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  const text = await answer.text()
  return { status: answer.status, body: text === '' ? undefined : (JSON.parse(text) as IssuedView & { code?: string }) }
}

export interface Key {
  readonly key: KeyObject
  readonly jkt: string
}

export function newKey(): Key {
  const { privateKey } = generateKeyPairSync('ed25519')
  return { key: privateKey, jkt: thumbprintOf(privateKey) }
}

export const attest = (parent: IssuedView, by: Key, o: { agent: string; authority: readonly Authority[] }) =>
  signAttestation({
    ...o,
    parent: parent.token,
    key: by.key,
    issuedAt: Math.floor(Date.now() / 1000),
    expiresAt: parent.expires_at,
  })
