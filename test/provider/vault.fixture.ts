/**
 * A model of a Vault server, as strict as the real one where the provider depends on it: tokens with lives, leases that end with the
 * token that asked for them, renewal up to a maximum, a node that is sealed. Members and statuses are those that Vault 1.21.4 gave to
 * the same requests by hand.
 */
import { randomBytes } from 'node:crypto'
import type { Clock } from '../../gateway/protocol/clock.ts'
import { type Answered, type Asked, type JsonServer, startJsonServer } from './json-server.fixture.ts'

export const ROLE_ID = '5ad0e0a1-7f3c-4b0e-9b5e-000000000001'
export const SECRET_ID = 'canary-secret-id-4711'

interface Token {
  readonly endsAtMs: number
  readonly maxMs: number
}

interface Lease {
  endsAtMs: number
  readonly maxMs: number
  readonly token: string
}

export interface VaultModel extends JsonServer {
  readonly tokens: Map<string, Token>
  readonly leases: Map<string, Lease>
  /** Lives in seconds. */
  readonly lives: { token: number; tokenMax: number; lease: number; leaseMax: number }
  isSealed: boolean
  /** What `kv/…` holds by path. */
  readonly stored: Record<string, unknown>
  /** Takes the assertion or token of a login; default: refuses all. */
  accepts(mount: string, role: string, jwt: string): boolean
  logins(): number
}

export async function startVaultModel(clock: Clock): Promise<VaultModel> {
  const server = await startJsonServer((asked) => answer(asked))
  const model: VaultModel = Object.assign(server, {
    tokens: new Map<string, Token>(),
    leases: new Map<string, Lease>(),
    lives: { token: 3600, tokenMax: 7200, lease: 300, leaseMax: 900 },
    isSealed: false,
    stored: {},
    accepts: () => false,
    logins: () => server.asked.filter(({ path }) => /^\/v1\/auth\/.*\/login$/.test(path)).length,
  })

  function answer(asked: Asked): Answered {
    if (model.isSealed) return { status: 503, json: { errors: ['Vault is sealed'] } }
    const path = asked.path.replace(/^\/v1\//, '')
    const login = /^auth\/([\w/-]+)\/login$/.exec(path)
    if (login?.[1] !== undefined && asked.method === 'POST')
      return logIn(login[1], asked.body as Record<string, string>)
    const token = String(asked.headers['x-vault-token'] ?? '')
    const held = model.tokens.get(token)
    if (held === undefined || held.endsAtMs <= clock.nowMs()) return refused(403, 'permission denied')
    return answerTo(token, path, asked)
  }

  function logIn(mount: string, body: Record<string, string>): Answered {
    const isRight = mount.includes('approle')
      ? body.role_id === ROLE_ID && body.secret_id === SECRET_ID
      : model.accepts(mount, body.role ?? '', body.jwt ?? '')
    if (!isRight) return refused(400, 'invalid role or secret ID')
    const token = `hvs.${randomBytes(24).toString('base64url')}`
    const nowMs = clock.nowMs()
    model.tokens.set(token, { endsAtMs: nowMs + model.lives.token * 1000, maxMs: nowMs + model.lives.tokenMax * 1000 })
    return auth(token, model.lives.token)
  }

  function answerTo(token: string, path: string, { method, body }: Asked): Answered {
    const held = model.tokens.get(token)
    if (held === undefined) return refused(403, 'permission denied')
    const leftS = Math.floor((held.endsAtMs - clock.nowMs()) / 1000)
    if (path === 'auth/token/lookup-self') return { status: 200, json: { data: { ttl: leftS, renewable: true } } }
    if (path === 'auth/token/renew-self') {
      const endsAtMs = Math.min(clock.nowMs() + model.lives.token * 1000, held.maxMs)
      model.tokens.set(token, { ...held, endsAtMs })
      return auth(token, Math.floor((endsAtMs - clock.nowMs()) / 1000))
    }
    return path.startsWith('sys/leases/') ? ofLease(path, body) : secretAt(token, path, method)
  }

  function ofLease(path: string, body: unknown): Answered {
    if (path === 'sys/leases/renew') return renew(body as { lease_id: string; increment: number })
    const { lease_id, sync } = body as { lease_id: string; sync: boolean }
    model.leases.delete(lease_id)
    return { status: sync ? 204 : 202 }
  }

  function secretAt(token: string, path: string, method: string): Answered {
    const role = /^database\/creds\/([\w-]+)$/.exec(path)?.[1]
    if (role === 'forbidden') return refused(403, 'permission denied')
    if (role === 'absent') return refused(400, 'unknown role: absent')
    if (role !== undefined && method === 'GET') return lease(token, role)
    if (path in model.stored && method === 'GET') return plain(model.stored[path])
    // Of a mount that is not there, to a token that is not root's.
    return path.startsWith('nothing/') ? refused(403, 'permission denied') : { status: 404, json: { errors: [] } }
  }

  function lease(token: string, role: string): Answered {
    const id = `database/creds/${role}/${randomBytes(12).toString('base64url')}`
    const { lease, leaseMax } = model.lives
    const nowMs = clock.nowMs()
    model.leases.set(id, { endsAtMs: nowMs + lease * 1000, maxMs: nowMs + leaseMax * 1000, token })
    const username = `v-approle-${role}-${randomBytes(4).toString('hex')}`
    const password = `canary-${randomBytes(10).toString('base64url')}`
    return {
      status: 200,
      json: answerOf({ lease_id: id, renewable: true, lease_duration: lease, data: { username, password } }),
    }
  }

  function renew({ lease_id, increment }: { lease_id: string; increment: number }): Answered {
    const held = model.leases.get(lease_id)
    if (held === undefined) return refused(400, 'lease not found')
    held.endsAtMs = Math.min(clock.nowMs() + increment * 1000, held.maxMs)
    const lease_duration = Math.floor((held.endsAtMs - clock.nowMs()) / 1000)
    return { status: 200, json: answerOf({ lease_id, renewable: true, lease_duration, data: null }) }
  }

  return model
}

function auth(client_token: string, lease_duration: number): Answered {
  const given = { client_token, accessor: 'accessor', lease_duration, renewable: true, token_type: 'service' }
  return { status: 200, json: answerOf({ lease_id: '', renewable: false, lease_duration: 0, data: null, auth: given }) }
}

/** Of an engine without leases. */
export function plain(data: unknown): Answered {
  return { status: 200, json: answerOf({ lease_id: '', renewable: false, lease_duration: 0, data }) }
}

function answerOf(o: Record<string, unknown>) {
  return { request_id: 'request', wrap_info: null, warnings: null, auth: null, ...o }
}

function refused(status: number, error: string): Answered {
  return { status, json: { errors: [error] } }
}
