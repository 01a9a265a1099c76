/** The steps by which a token of Google is got, each a request of its own. What comes back is untrusted, as with every issuer. */
import { SignJWT } from 'jose'
import { z } from 'zod'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import { keptKey } from '../jwt-key.ts'
import { exchange, type IssuerAnswer, isPassing, unavailable } from '../oauth/issuer-exchange.ts'
import { subjectClaims } from '../oauth/subject-claims.ts'
import type { Placement } from '../placement/placement.ts'
import type { Assertions, Credential, FetchFor, GuardedFetch, IssueRequest } from '../provider.ts'
import type { ReadSecret } from '../reference.ts'
import { rsaPrivateKey } from '../rsa-key.ts'
import { googleRefusal } from './failure.ts'
import type { GoogleConfig } from './schema.ts'

export interface GoogleTools {
  readonly fetchFor: FetchFor
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly assertions: Assertions
  readonly placement: Placement
}

export interface GoogleFar {
  readonly config: GoogleConfig
  readonly tools: GoogleTools
  readonly fetch: GuardedFetch
}

/** One issue under way. */
export interface Step {
  readonly far: GoogleFar
  readonly request: IssueRequest
  readonly signal: AbortSignal
}

/** Seconds that an assertion is good for. */
const ASSERTION_LIFE_S = 300

/** Seconds; what Google gives where it is not asked for less, and the most that it gives without an organisation policy. */
const MAX_LIFE_S = 3600

/** Seconds on top of what is needed, because the last minute of a credential is not used. */
const MARGIN_S = 60

const serviceAccountKey = z.object({
  client_email: z.string().min(3),
  private_key: z.string().min(1),
  private_key_id: z.string().min(1).optional(),
})

export function googleFar(config: GoogleConfig, tools: GoogleTools): GoogleFar {
  return { config, tools, fetch: tools.fetchFor(config.addresses) }
}

/** RFC 7523 §2.1 with a key of the service account. */
export async function keyToken(step: Step, scope: string): Promise<Credential> {
  const { config, tools } = step.far
  const claims = { scope, ...(config.subject !== undefined && { sub: config.subject }) }
  const assertion = await signed(step, claims, { audience: config.token_url, lifeS: ASSERTION_LIFE_S })
  const askedAtS = nowS(tools.clock)
  const form = { grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', assertion: assertion.reveal() }
  const answer = await post(step, config.token_url, new URLSearchParams(form))
  return tokenOf(answer, { url: config.token_url, askedAtS, scope })
}

/** AIP-4111: a JWT of the service account is itself the access token. Nobody is asked. */
export async function selfSignedToken(step: Step): Promise<Credential> {
  const { config, tools } = step.far
  const lifeS = neededS(step.request)
  const expiresAt = nowS(tools.clock) + lifeS
  const { scope = '' } = config
  const secret = await signed(step, { scope }, { lifeS, isOwnSubject: true })
  return { secret, expiresAt, ephemeral: true, scope }
}

/** RFC 8693 at Google's STS: an assertion of this gateway for a token of the pool. The lineage travels in its claims. */
export async function federatedToken(
  step: Step,
  federation: NonNullable<GoogleConfig['federation']>,
  scope: string,
): Promise<Credential> {
  const { config, tools } = step.far
  const assertion = await tools.assertions.sign(
    { ...subjectClaims(step.request.grant) },
    { audience: federation.audience ?? `https:${federation.provider}`, lifeS: ASSERTION_LIFE_S },
  )
  const askedAtS = nowS(tools.clock)
  const form = {
    ...EXCHANGE,
    audience: federation.provider,
    scope,
    subject_token: assertion.reveal(),
    subject_token_type: 'urn:ietf:params:oauth:token-type:jwt',
  }
  return tokenOf(await post(step, config.sts_url, new URLSearchParams(form)), { url: config.sts_url, askedAtS, scope })
}

const EXCHANGE = {
  grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
  requested_token_type: 'urn:ietf:params:oauth:token-type:access_token',
} as const

const generated = z.object({ accessToken: z.string().min(1), expireTime: z.iso.datetime({ offset: true }) })

/** `projects.serviceAccounts.generateAccessToken`: for no longer than is needed. */
export async function impersonatedToken(step: Step, token: Credential, scope: string): Promise<Credential> {
  const { config, tools } = step.far
  const lifeS = neededS(step.request)
  const askedAtS = nowS(tools.clock)
  const url = `${config.iam_url.replace(/\/+$/, '')}/projects/-/serviceAccounts/${encodeURIComponent(config.impersonate ?? '')}:generateAccessToken`
  const body = {
    scope: scope.split(' '),
    lifetime: `${lifeS}s`,
    ...(config.delegates.length > 0 && {
      delegates: config.delegates.map((one) => `projects/-/serviceAccounts/${one}`),
    }),
  }
  const answer = await post(step, url, body, token.secret)
  const { success, data } = generated.safeParse(answer.json)
  if (!success) throw unavailable(issuerAt(url), 'answered something that is not a token')
  const expiresAt = Math.floor(Date.parse(data.expireTime) / 1000)
  // Clocks may differ by a minute; a token for an hour where minutes were asked for is another matter.
  if (expiresAt > askedAtS + lifeS + MARGIN_S)
    throw new GatewayError('credential_too_wide', `${issuerAt(url)} gave a token that lives longer than was asked for.`)
  return {
    secret: new Secret(data.accessToken),
    expiresAt: Math.min(expiresAt, askedAtS + lifeS),
    ephemeral: true,
    scope,
  }
}

/** RFC 8693 at Google's STS, which puts a bound around a token. It ends with the token that it was made of. */
export async function withinBoundary(step: Step, token: Credential, boundary: object): Promise<Credential> {
  const { sts_url } = step.far.config
  const form = {
    ...EXCHANGE,
    subject_token: token.secret.reveal(),
    subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    options: JSON.stringify(boundary),
  }
  const answer = await post(step, sts_url, new URLSearchParams(form))
  const lifeS = token.expiresAt - nowS(step.far.tools.clock)
  const made = tokenOf(answer, { url: sts_url, askedAtS: nowS(step.far.tools.clock), assumedLifeS: lifeS })
  return { ...made, expiresAt: Math.min(made.expiresAt, token.expiresAt), scope: JSON.stringify(boundary) }
}

const answered = z.object({
  access_token: z.string().min(1),
  expires_in: z.number().positive().optional(),
  scope: z.string().optional(),
})

interface Asked {
  readonly url: string
  readonly askedAtS: number
  /** Scope that was asked for. */
  readonly scope?: string
  /** Seconds, where the answer does not say. Default: an hour, as Google documents. */
  readonly assumedLifeS?: number
}

function tokenOf({ json }: IssuerAnswer, { url, askedAtS, scope, assumedLifeS = MAX_LIFE_S }: Asked): Credential {
  const { success, data } = answered.safeParse(json)
  if (!success) throw unavailable(issuerAt(url), 'answered something that is not a token')
  const wanted = scope?.split(' ')
  if (wanted !== undefined && data.scope?.split(' ').some((one) => one !== '' && !wanted.includes(one)))
    throw new GatewayError('credential_too_wide', `${issuerAt(url)} gave a token with scope that was not asked for.`)
  return {
    secret: new Secret(data.access_token),
    expiresAt: askedAtS + Math.floor(Math.min(data.expires_in ?? assumedLifeS, assumedLifeS)),
    ephemeral: true,
    ...(scope !== undefined && { scope }),
  }
}

async function signed(
  { far, signal }: Step,
  claims: Readonly<Record<string, string>>,
  { audience, lifeS, isOwnSubject }: { audience?: string; lifeS: number; isOwnSubject?: boolean },
): Promise<Secret> {
  const { config, tools } = far
  if (config.key === undefined) throw new Error('a key is what this is signed with')
  const { client_email, private_key, private_key_id } = readKey(await tools.readSecret(config.key, signal))
  const atS = nowS(tools.clock)
  const jwt = new SignJWT({ ...claims, ...(isOwnSubject && { sub: client_email }) })
    .setProtectedHeader({ alg: 'RS256', typ: 'JWT', ...(private_key_id !== undefined && { kid: private_key_id }) })
    .setIssuer(client_email)
    .setIssuedAt(atS)
    .setExpirationTime(atS + lifeS)
  if (audience !== undefined) jwt.setAudience(audience)
  const read = () => rsaPrivateKey(private_key, 'private_key in the key of the service account')
  return new Secret(await jwt.sign(keptKey(config, private_key, read)))
}

/** Parser errors quote their input, which is a private key: nothing of them is kept. */
function readKey(secret: Secret): z.infer<typeof serviceAccountKey> {
  try {
    const parsed = serviceAccountKey.safeParse(JSON.parse(secret.reveal()))
    if (parsed.success) return parsed.data
  } catch {}
  throw new GatewayError(
    'credential_unconfigured',
    'The key of the service account cannot be used: it is not the JSON file that Google hands out (client_email, private_key).',
  )
}

async function post({ far, signal }: Step, url: string, body: unknown, bearer?: Secret): Promise<IssuerAnswer> {
  const headers = {
    Accept: 'application/json',
    ...(bearer !== undefined && { Authorization: `Bearer ${bearer.reveal()}` }),
  }
  const answer = await exchange(far.fetch, issuerAt(url), { url, method: 'POST', headers, body, signal })
  if (answer.status === 200) return answer
  if (isPassing(answer.status)) throw unavailable(issuerAt(url), `answered ${answer.status}`, answer.retryAfterMs)
  throw googleRefusal(issuerAt(url), answer)
}

function issuerAt(url: string): string {
  return `Google at ${new URL(url).host}`
}

/** As long as the lease may be used, and its last minute. */
function neededS({ ttlS }: IssueRequest): number {
  return Math.min(Math.ceil(ttlS) + MARGIN_S, MAX_LIFE_S)
}

function nowS(clock: Clock): number {
  return Math.floor(clock.nowMs() / 1000)
}
