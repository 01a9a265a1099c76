/**
 * Google, as far as tokens of service accounts are got there: JWTs are verified with the account's public key, assertions with the
 * gateway's, impersonation needs a token of the platform scope, an access boundary is kept with the token. After developers.google.com,
 * "Using OAuth 2.0 for Server to Server Applications", and cloud.google.com, "Method: token", "generateAccessToken".
 */
import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose'
import type { ThrowAwayTls } from '../../deploy/demo/certificate.ts'
import { type Answered, type Asked, type JsonServer, startJsonServer } from './json-server.fixture.ts'

export const ROBOT = 'robot@acme.iam.gserviceaccount.com'
export const READER = 'reader@acme.iam.gserviceaccount.com'
export const POOL = '//iam.googleapis.com/projects/123/locations/global/workloadIdentityPools/agents/providers/keyless'
const PLATFORM = 'https://www.googleapis.com/auth/cloud-platform'
const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'

export interface FakeGoogleToken {
  readonly subject: string
  readonly scope: string
  /** Epoch milliseconds. */
  readonly endsAtMs: number
  readonly boundary?: unknown
  /** Claims by which it was asked for. */
  readonly claims?: JWTPayload
}

export interface FakeGoogle extends Pick<JsonServer, 'url' | 'asked' | 'stop'> {
  readonly privateKey: KeyObject
  readonly tokens: Map<string, FakeGoogleToken>
  interrupt: JsonServer['interrupt']
  tamper: ((answer: Record<string, unknown>) => Record<string, unknown>) | undefined
}

/** @param assertionKey by which the pool verifies assertions. */
export async function startGoogle(assertionKey: KeyObject | JWTVerifyGetKey, tls?: ThrowAwayTls): Promise<FakeGoogle> {
  const keyOf: JWTVerifyGetKey = typeof assertionKey === 'function' ? assertionKey : () => assertionKey
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const tokens = new Map<string, FakeGoogleToken>()
  const server = await startJsonServer((asked) => answer(asked).catch(() => refused('invalid_grant')), tls)

  async function answer(asked: Asked): Promise<Answered> {
    const form = asked.body as Record<string, string>
    if (asked.path === '/token') return ofKey(form)
    if (asked.path === '/v1/token') return form.options === undefined ? federate(asked, form) : bound(form)
    return impersonate(asked)
  }

  async function ofKey(form: Record<string, string>): Promise<Answered> {
    if (form.grant_type !== 'urn:ietf:params:oauth:grant-type:jwt-bearer') return refused('unsupported_grant_type')
    const terms = { algorithms: ['RS256'], audience: `${server.url}/token`, issuer: ROBOT }
    const { payload } = await jwtVerify(form.assertion ?? '', publicKey, terms)
    if ((payload.exp ?? 0) > Date.now() / 1000 + 3600) return refused('invalid_grant')
    const subject = payload.sub ?? ROBOT
    if (subject !== ROBOT && subject !== 'ana@acme.test') return refused('unauthorized_client')
    return give({ subject, scope: String(payload.scope), endsAtMs: Date.now() + 3_600_000 }, 'token')
  }

  async function federate(asked: Asked, form: Record<string, string>): Promise<Answered> {
    if (asked.headers.authorization !== undefined || form.grant_type !== EXCHANGE) return refused('invalid_request')
    if (form.audience !== POOL) return refused('invalid_target')
    const { payload } = await jwtVerify(form.subject_token ?? '', keyOf, { audience: `https:${POOL}` })
    const token = {
      subject: `pool/${payload.sub}`,
      scope: form.scope ?? '',
      endsAtMs: Date.now() + 3_600_000,
      claims: payload,
    }
    return give(token, 'token')
  }

  function bound(form: Record<string, string>): Answered {
    const token = tokens.get(form.subject_token ?? '')
    if (token?.scope !== PLATFORM || form.grant_type !== EXCHANGE) return refused('invalid_request')
    // As documented, the answer of a token of a pool says no end.
    return give(
      { ...token, boundary: JSON.parse(form.options ?? '') },
      token.claims === undefined ? 'token' : 'endless',
    )
  }

  function impersonate({ path, headers, body }: Asked): Answered {
    const caller = tokens.get(headers.authorization?.replace('Bearer ', '') ?? '')
    if (caller === undefined) return { status: 401, json: { error: { code: 401, status: 'UNAUTHENTICATED' } } }
    const account = /^\/v1\/projects\/-\/serviceAccounts\/(.+):generateAccessToken$/.exec(path)?.[1]
    if (decodeURIComponent(account ?? '') !== READER || caller.scope !== PLATFORM)
      return { status: 403, json: { error: { code: 403, status: 'PERMISSION_DENIED', message: 'canary-text' } } }
    const { scope, lifetime } = body as { scope: string[]; lifetime: string }
    const lifeS = Number(/^(\d+)s$/.exec(lifetime)?.[1])
    if (!(lifeS > 0 && lifeS <= 3600))
      return { status: 400, json: { error: { code: 400, status: 'INVALID_ARGUMENT' } } }
    const endsAtMs = Math.floor(Date.now() / 1000 + lifeS) * 1000
    return give(
      { subject: READER, scope: scope.join(' '), endsAtMs, ...(caller.claims && { claims: caller.claims }) },
      'generated',
    )
  }

  function give(token: FakeGoogleToken, form: 'token' | 'endless' | 'generated'): Answered {
    const value = `ya29.${randomBytes(24).toString('base64url')}`
    tokens.set(value, token)
    const expires_in = Math.round((token.endsAtMs - Date.now()) / 1000)
    const json =
      form === 'generated'
        ? { accessToken: value, expireTime: new Date(token.endsAtMs).toISOString() }
        : { access_token: value, token_type: 'Bearer', ...(form === 'token' && { expires_in }) }
    return { status: 200, json: self.tamper?.(json) ?? json }
  }

  const self: FakeGoogle = {
    url: server.url,
    asked: server.asked,
    privateKey,
    tokens,
    interrupt: undefined,
    tamper: undefined,
    stop: () => server.stop(),
  }
  server.interrupt = (asked) => self.interrupt?.(asked)
  return self
}

function refused(error: string): Answered {
  return { status: 400, json: { error, error_description: 'canary-text' } }
}
