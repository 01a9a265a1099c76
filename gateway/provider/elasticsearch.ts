/**
 * API keys of Elasticsearch, made for one task and what its call does: they end by themselves, carry a role of their own, which the
 * cluster intersects with that of the gateway's user, say for whom they are, and are invalidated at the end.
 */
import { z } from 'zod'
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import { Secret } from '../protocol/secret.ts'
import { type ElasticsearchConfig, fillRole } from './elasticsearch-schema.ts'
import { exchange, type IssuerAnswer, isPassing, unavailable } from './oauth/issuer-exchange.ts'
import { subjectClaims } from './oauth/subject-claims.ts'
import type { Placement } from './placement/placement.ts'
import type { Credential, FetchFor, GuardedFetch, IssueRequest, Provider } from './provider.ts'
import { type ReadSecret, referenceIdentity } from './reference.ts'
import { roleKey } from './roles.ts'

/** Seconds by which the cluster's clock may differ before its answer counts as longer than what was asked. */
const TOLERANCE_S = 60

interface ElasticsearchTools {
  readonly fetchFor: FetchFor
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly placement: Placement
}

export function createElasticsearch(config: ElasticsearchConfig, tools: ElasticsearchTools): Provider {
  const fetch = tools.fetchFor(config.addresses)
  const far: FarSide = { config, tools, fetch, issuer: `Elasticsearch at ${new URL(config.url).host}` }
  return {
    name: 'elasticsearch',
    narrows: 'resource',
    identity: identityOf(config),
    role({ operation, params }) {
      const key = roleKey(config.roles, operation)
      return JSON.stringify({ [key]: fillRole(config.roles[key] ?? {}, params) })
    },
    issue: (request, signal) => issue(far, request, signal),
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
    derived(credential, service) {
      const bare = credential.parts?.api_key
      return [...(bare ? [bare] : []), ...tools.placement.derived(credential, service)]
    },
    revoke: (credential, signal) => invalidate(far, credential.parts?.id?.reveal(), signal),
  }
}

interface FarSide {
  readonly config: ElasticsearchConfig
  readonly tools: ElasticsearchTools
  readonly fetch: GuardedFetch
  readonly issuer: string
}

const keyAnswer = z.object({
  id: z.string().regex(/^[A-Za-z0-9_-]+$/),
  api_key: z.string().regex(/^[A-Za-z0-9_-]+$/),
  /** Epoch milliseconds. Absent: it never ends. */
  expiration: z.int().optional(),
})

async function issue(far: FarSide, { grant, ttlS, role }: IssueRequest, signal: AbortSignal): Promise<Credential> {
  const { tools, issuer } = far
  const askedAtS = Math.floor(tools.clock.nowMs() / 1000)
  const body = {
    name: `keyless ${grant.task.id} ${grant.id}`,
    expiration: `${ttlS}s`,
    // Without any it would have all that the gateway's user may do: `role` has run for every call.
    role_descriptors: JSON.parse(role ?? refuseUnknownRole()),
    metadata: subjectClaims(grant),
  }
  const answer = await ask(far, 'POST', body, signal)
  const given = answer.status === 200 ? keyAnswer.safeParse(answer.json).data : undefined
  if (given === undefined) throw failure(issuer, answer)
  const endsAtS = Math.floor((given.expiration ?? Number.POSITIVE_INFINITY) / 1000)
  if (endsAtS > askedAtS + ttlS + TOLERANCE_S) {
    await invalidate(far, given.id, signal).catch(() => undefined)
    throw new GatewayError(
      'credential_too_wide',
      `${issuer} gave an API key that lives longer than the ${ttlS} s asked for.`,
    )
  }
  return {
    secret: new Secret(Buffer.from(`${given.id}:${given.api_key}`).toString('base64')),
    parts: { id: new Secret(given.id), api_key: new Secret(given.api_key) },
    expiresAt: Math.min(endsAtS, askedAtS + ttlS),
    ephemeral: true,
  }
}

function refuseUnknownRole(): never {
  throw new GatewayError('credential_unconfigured', 'An API key is issued for what a call does, and this is none.')
}

const invalidateAnswer = z.object({
  invalidated_api_keys: z.array(z.string()),
  previously_invalidated_api_keys: z.array(z.string()),
})

/** Status 200 alone says nothing: the answer counts the keys. `owner` is all that `manage_own_api_key` allows. */
async function invalidate(far: FarSide, id: string | undefined, signal: AbortSignal): Promise<void> {
  if (id === undefined) return
  const answer = await ask(far, 'DELETE', { ids: [id], owner: true }, signal)
  const ended = answer.status === 200 ? invalidateAnswer.safeParse(answer.json).data : undefined
  if (ended === undefined) throw failure(far.issuer, answer)
  if (![...ended.invalidated_api_keys, ...ended.previously_invalidated_api_keys].includes(id))
    throw new GatewayError('credential_rejected', `${far.issuer} did not invalidate the API key.`)
}

async function ask(far: FarSide, method: 'POST' | 'DELETE', body: unknown, signal: AbortSignal): Promise<IssuerAnswer> {
  const { config, issuer, fetch } = far
  const url = `${config.url.replace(/\/+$/, '')}/_security/api_key`
  const headers = { Accept: 'application/json', Authorization: await ownAuthorization(far, signal) }
  return exchange(fetch, issuer, { method, url, headers, body, signal })
}

async function ownAuthorization({ config, tools }: FarSide, signal: AbortSignal): Promise<string> {
  const { own } = config
  if ('token' in own) return `Bearer ${(await tools.readSecret(own.token, signal)).reveal()}`
  const password = await tools.readSecret(own.password, signal)
  return `Basic ${Buffer.from(`${own.username}:${password.reveal()}`).toString('base64')}`
}

function identityOf({ url, addresses, own, roles }: ElasticsearchConfig): string {
  const known = 'token' in own ? referenceIdentity(own.token) : [own.username, referenceIdentity(own.password)]
  return JSON.stringify(['elasticsearch', url, addresses, known, roles])
}

function failure(issuer: string, { status, retryAfterMs }: IssuerAnswer): GatewayError {
  if (isPassing(status)) return unavailable(issuer, `answered ${status}`, retryAfterMs)
  if (status >= 200 && status < 300) return unavailable(issuer, 'answered something that is not its API')
  return new GatewayError(
    'credential_rejected',
    `${issuer} refused an API key (${status}). ${ADVICE[status] ?? 'Check url in settings.'}`,
  )
}

const ADVICE: Readonly<Record<number, string>> = {
  400: 'Check roles: the cluster does not take a role descriptor as it is written there. An API key cannot make keys with roles either: give the gateway a user or a service token.',
  401: 'It does not know the gateway: look at own in settings.',
  403: 'Give the gateway’s user the cluster privilege manage_own_api_key.',
}
