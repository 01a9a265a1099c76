/**
 * GitLab, as far as project and group access tokens are made and revoked there. After docs.gitlab.com, "Project access tokens API":
 * only a personal token makes them, with no higher role than its owner has, until a date that lies ahead.
 */
import { randomBytes } from 'node:crypto'
import type { ThrowAwayTls } from '../../deploy/demo/certificate.ts'
import type { Clock } from '../../gateway/protocol/clock.ts'
import { type Answered, type Asked, type JsonServer, startJsonServer } from './json-server.fixture.ts'

/** Its owner is Maintainer of these. */
export const MAKER = 'glpat-canary-maker-0815'
const PLACES = new Set(['projects/acme/site', 'projects/acme/sub/site', 'projects/42', 'groups/acme'])
const MAINTAINER = 40
const SCOPES = new Set(['api', 'read_api', 'read_repository', 'write_repository', 'read_registry', 'write_registry'])

export interface FakeGitlabToken {
  readonly id: number
  /** `projects/acme/site` */
  readonly place: string
  readonly name: string
  readonly scopes: readonly string[]
  readonly accessLevel: number
  isRevoked: boolean
}

export interface FakeGitlab extends Pick<JsonServer, 'url' | 'asked' | 'stop'> {
  readonly tokens: Map<string, FakeGitlabToken>
  interrupt: JsonServer['interrupt']
  tamper: ((answer: Record<string, unknown>) => Record<string, unknown>) | undefined
}

export async function startGitlab(clock: Clock, tls?: ThrowAwayTls): Promise<FakeGitlab> {
  const tokens = new Map<string, FakeGitlabToken>()
  const server = await startJsonServer(answer, tls)

  function answer({ method, path, headers, body }: Asked): Answered {
    if (headers['private-token'] !== MAKER) return { status: 401, json: { message: '401 Unauthorized' } }
    const [, , , kind = '', id = '', what, tokenId] = path.split('/')
    const place = `${kind}/${decodeURIComponent(id)}`
    if (!PLACES.has(place) || what !== 'access_tokens') return { status: 404, json: { message: '404 Not Found' } }
    return method === 'DELETE' ? end(place, Number(tokenId)) : make(place, body as Record<string, unknown>)
  }

  function make(place: string, body: Record<string, unknown>): Answered {
    const { name, scopes, access_level, expires_at } = body as {
      name: string
      scopes: string[]
      access_level: number
      expires_at: string
    }
    const today = new Date(clock.nowMs()).toISOString().slice(0, 10)
    if (!/^\d{4}-\d\d-\d\d$/.test(expires_at) || expires_at <= today || !scopes.every((one) => SCOPES.has(one)))
      return { status: 400, json: { message: '400 Bad request' } }
    if (access_level > MAINTAINER) return { status: 400, json: { message: '400 Bad request' } }
    const token = `glpat-${randomBytes(15).toString('base64url')}`
    const id = tokens.size + 1
    tokens.set(token, { id, place, name, scopes, accessLevel: access_level, isRevoked: false })
    const json = { id, token, name, scopes, access_level, expires_at, active: true, revoked: false, user_id: 166 }
    return { status: 201, json: self.tamper?.(json) ?? json }
  }

  function end(place: string, id: number): Answered {
    const token = [...tokens.values()].find((one) => one.id === id && one.place === place && !one.isRevoked)
    if (token === undefined) return { status: 404, json: { message: '404 Not Found' } }
    token.isRevoked = true
    return { status: 204 }
  }

  const self: FakeGitlab = {
    url: server.url,
    asked: server.asked,
    tokens,
    interrupt: undefined,
    tamper: undefined,
    stop: () => server.stop(),
  }
  server.interrupt = (asked) => self.interrupt?.(asked)
  return self
}
