/**
 * The gateway's own token at a Vault or OpenBao server. Kept until its end, because every login costs the server a token and
 * AppRole secret ids may be good for a few logins only; prolonged where the server allows that. One login at a time, detached from
 * whoever needs it first.
 */
import { z } from 'zod'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import type { IssuerAnswer } from '../oauth/issuer-exchange.ts'
import type { Assertions } from '../provider.ts'
import type { ReadSecret } from '../reference.ts'
import { type Advice, vaultFailure } from './failure.ts'
import type { VaultConnectionConfig, VaultLogin } from './schema.ts'

/** Milliseconds for a login, whoever waits for it. */
const LOGIN_TIMEOUT_MS = 10_000

/** Seconds that what the gateway signs for a login is good for. */
const ASSERTION_LIFE_S = 60

export interface OwnToken {
  readonly secret: Secret
  /** Epoch seconds; Infinity for a token without end. What was leased with it ends with it. */
  readonly endsAtS: number
  /** Seconds that it had when it was new. */
  readonly lifeS: number
  readonly isRenewable: boolean
}

export interface OwnTokens {
  /** One with half of its life before it, or all that its server gives. @throws {GatewayError} as a login does. */
  current(signal: AbortSignal): Promise<OwnToken>
  /** The server does not know it any more. */
  forget(token: OwnToken): void
}

export interface VaultMessage {
  readonly method: 'GET' | 'POST'
  /** Below `/v1/`. */
  readonly path: string
  readonly body?: Readonly<Record<string, unknown>>
  readonly token?: Secret
  readonly namespace?: string | undefined
  readonly signal: AbortSignal
}

/** @throws {GatewayError} when no answer comes. */
export type SendToVault = (message: VaultMessage) => Promise<IssuerAnswer>

export interface TokenTools {
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly assertions: Assertions
  readonly send: SendToVault
  readonly issuer: string
}

export function createOwnTokens(config: VaultConnectionConfig, tools: TokenTools): OwnTokens {
  let held: OwnToken | undefined
  let flight: Promise<OwnToken> | undefined
  const nowS = () => tools.clock.nowMs() / 1000
  const isYoung = (token: OwnToken) => token.endsAtS - nowS() > token.lifeS / 2

  async function next(): Promise<OwnToken> {
    const signal = AbortSignal.timeout(LOGIN_TIMEOUT_MS)
    const prolonged = held?.isRenewable && held.endsAtS > nowS() ? await renewed(held, tools, signal) : undefined
    held = prolonged !== undefined && isYoung(prolonged) ? prolonged : await loggedIn(config, tools, signal)
    return held
  }

  return {
    current(signal) {
      if (held !== undefined && isYoung(held)) return Promise.resolve(held)
      flight ??= next().finally(() => {
        flight = undefined
      })
      return Promise.race([flight, aborted(signal, tools.issuer)])
    },
    forget(token) {
      if (held === token) held = undefined
    },
  }
}

function aborted(signal: AbortSignal, issuer: string): Promise<never> {
  return new Promise((_, fail) => {
    const stop = () => fail(new GatewayError('credential_unavailable', `${issuer} did not answer the login in time.`))
    if (signal.aborted) stop()
    else signal.addEventListener('abort', stop, { once: true })
  })
}

const authAnswer = z.object({
  auth: z.object({
    client_token: z.string().min(1),
    lease_duration: z.int().min(0),
    renewable: z.boolean(),
  }),
})

/** `auth/token/lookup-self`, which the default policy allows. */
const lookupAnswer = z.object({ data: z.object({ ttl: z.int().min(0), renewable: z.boolean().optional() }) })

async function loggedIn(config: VaultConnectionConfig, tools: TokenTools, signal: AbortSignal): Promise<OwnToken> {
  const { login } = config
  // Counted from before the request, so that time on the wire shortens the life and never lengthens it.
  const askedAtS = Math.floor(tools.clock.nowMs() / 1000)
  if (login.method === 'token') return lookedUp(await tools.readSecret(login.token, signal), tools, signal)
  const body = await proofOf(login, config, tools, signal)
  const path = `auth/${login.mount}/login`
  const answer = await tools.send({ method: 'POST', path, body, signal })
  return tokenOf(answer, askedAtS) ?? fail(vaultFailure(tools.issuer, answer, LOGIN_ADVICE[login.method]))
}

/** @returns undefined when its server does not prolong it. */
async function renewed(token: OwnToken, tools: TokenTools, signal: AbortSignal): Promise<OwnToken | undefined> {
  const askedAtS = Math.floor(tools.clock.nowMs() / 1000)
  const answer = await tools.send({
    method: 'POST',
    path: 'auth/token/renew-self',
    body: {},
    token: token.secret,
    signal,
  })
  const prolonged = tokenOf(answer, askedAtS)
  return prolonged && { ...prolonged, secret: token.secret, lifeS: token.lifeS }
}

function tokenOf(answer: IssuerAnswer, askedAtS: number): OwnToken | undefined {
  const auth = answer.status === 200 ? authAnswer.safeParse(answer.json).data?.auth : undefined
  if (auth === undefined) return undefined
  const lifeS = auth.lease_duration === 0 ? Number.POSITIVE_INFINITY : auth.lease_duration
  return withLife(new Secret(auth.client_token), { askedAtS, lifeS, isRenewable: auth.renewable })
}

/** A token that came from elsewhere: how long it lives, its server knows. */
async function lookedUp(secret: Secret, tools: TokenTools, signal: AbortSignal): Promise<OwnToken> {
  const askedAtS = Math.floor(tools.clock.nowMs() / 1000)
  const answer = await tools.send({ method: 'GET', path: 'auth/token/lookup-self', token: secret, signal })
  const known = answer.status === 200 ? lookupAnswer.safeParse(answer.json).data?.data : undefined
  if (known === undefined) throw vaultFailure(tools.issuer, answer, LOGIN_ADVICE.token)
  const lifeS = known.ttl === 0 ? Number.POSITIVE_INFINITY : known.ttl
  return withLife(secret, { askedAtS, lifeS, isRenewable: known.renewable === true })
}

function withLife(
  secret: Secret,
  { askedAtS, lifeS, isRenewable }: { askedAtS: number; lifeS: number; isRenewable: boolean },
): OwnToken {
  // A token without end is not asked for again before it is refused.
  return { secret, endsAtS: askedAtS + lifeS, lifeS: Number.isFinite(lifeS) ? lifeS : 0, isRenewable }
}

type Proved = Exclude<VaultLogin, { readonly method: 'token' }>

/** What the login endpoint of each method takes. */
async function proofOf(
  login: Proved,
  config: VaultConnectionConfig,
  { readSecret, assertions }: TokenTools,
  signal: AbortSignal,
): Promise<Record<string, string>> {
  switch (login.method) {
    case 'approle': {
      const { role_id, secret_id } = login
      const roleId = typeof role_id === 'string' ? role_id : (await readSecret(role_id, signal)).reveal()
      const secretId = secret_id && (await readSecret(secret_id, signal)).reveal()
      return { role_id: roleId, ...(secretId !== undefined && { secret_id: secretId }) }
    }
    case 'kubernetes':
      return { role: login.role, jwt: (await readSecret(login.token, signal)).reveal() }
    case 'jwt': {
      const terms = { audience: login.audience ?? config.address, lifeS: ASSERTION_LIFE_S }
      const jwt = login.token
        ? await readSecret(login.token, signal)
        : await assertions.sign({ sub: login.subject }, terms)
      return { role: login.role, jwt: jwt.reveal() }
    }
    default:
      return login satisfies never
  }
}

const LOGIN_ADVICE: Readonly<Record<VaultLogin['method'], Advice>> = {
  approle: adviceFor('approle', 'Check role_id and secret_id: ids end, and may be good for a few logins only.'),
  jwt: adviceFor('jwt', 'Check role, audience and subject against the role there, and the keys that it trusts.'),
  kubernetes: adviceFor('kubernetes', 'Check role, and the service account and namespace that it is bound to.'),
  token: {
    ...adviceFor('token', 'The token has ended or is not of this server.'),
    asked: 'the token that settings name',
  },
}

function adviceFor(method: string, known: string): Advice {
  return {
    asked: `the login by ${method}`,
    400: known,
    // Also what a mount that is not there answers.
    403: `${known} Check mount and namespace too.`,
    404: 'Check mount and namespace: nothing is there under this path.',
  }
}

function fail(error: GatewayError): never {
  throw error
}
