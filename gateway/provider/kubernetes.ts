/**
 * Tokens of Kubernetes service accounts (TokenRequest, `authentication.k8s.io/v1`): as long as the cluster's shortest, for the
 * service account that the call needs, and, where settings say so, bound to a Secret whose deletion ends them.
 */
import { z } from 'zod'
import type { Clock } from '../protocol/clock.ts'
import type { Grant } from '../protocol/grant.ts'
import { uuidv7 } from '../protocol/id.ts'
import { GatewayError } from '../protocol/problem.ts'
import { Secret } from '../protocol/secret.ts'
import type { KubernetesConfig } from './kubernetes-schema.ts'
import { exchange, type IssuerAnswer, type IssuerRequest, isPassing, unavailable } from './oauth/issuer-exchange.ts'
import { subjectClaims } from './oauth/subject-claims.ts'
import type { Placement } from './placement/placement.ts'
import type { Credential, FetchFor, GuardedFetch, IssueRequest, Provider } from './provider.ts'
import { type ReadSecret, referenceIdentity } from './reference.ts'
import { roleKey } from './roles.ts'

/** "must not be less than 10 minutes" (validation of TokenRequest). */
const LEAST_LIFE_S = 600

/** Asked for this many seconds, a server with `--service-account-extend-token-expiration` makes it a year, and does not say so. */
const EXTENDED_LIFE_S = 3607

/** Seconds by which a server's clock may differ before its answer counts as longer than what was asked. */
const TOLERANCE_S = 60

interface KubernetesTools {
  readonly fetchFor: FetchFor
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly placement: Placement
}

export function createKubernetes(config: KubernetesConfig, tools: KubernetesTools): Provider {
  const { service_account: accounts } = config
  const far: FarSide = {
    config,
    tools,
    fetch: tools.fetchFor(config.addresses),
    issuer: `Kubernetes at ${new URL(config.server).host}`,
  }
  return {
    name: 'kubernetes',
    narrows: 'scope',
    identity: identityOf(config),
    ...(typeof accounts !== 'string' && { role: ({ operation }) => accounts[roleKey(accounts, operation)] ?? '' }),
    issue: (request, signal) => issue(far, request, signal),
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
    derived: (credential, service) => tools.placement.derived(credential, service),
    ...(config.revocable && {
      revoke: (credential: Credential, signal: AbortSignal) => unbind(far, credential.parts?.bound_to, signal),
    }),
  }
}

interface FarSide {
  readonly config: KubernetesConfig
  readonly tools: KubernetesTools
  readonly fetch: GuardedFetch
  readonly issuer: string
}

interface Bound {
  readonly kind: string
  readonly name: string
  readonly uid?: string | undefined
}

async function issue(far: FarSide, request: IssueRequest, signal: AbortSignal): Promise<Credential> {
  const { config } = far
  const account = request.role ?? config.service_account
  const bound = config.revocable ? await bind(far, request.grant, signal) : config.bound_to
  const boundTo = config.revocable && bound ? new Secret(JSON.stringify(bound)) : undefined
  try {
    const { secret, expiresAt } = await requestToken(
      far,
      { account: String(account), bound, ttlS: request.ttlS },
      signal,
    )
    return { secret, expiresAt, ephemeral: true, ...(boundTo && { parts: { bound_to: boundTo } }) }
  } catch (cause) {
    // Nobody will use it, so it is ended where that is possible.
    await unbind(far, boundTo, signal).catch(() => undefined)
    throw cause
  }
}

interface Wanted {
  readonly account: string
  readonly bound: Bound | undefined
  readonly ttlS: number
}

const tokenAnswer = z.object({
  spec: z.object({ audiences: z.array(z.string()).optional() }),
  status: z.object({ token: z.string().min(1), expirationTimestamp: z.iso.datetime({ offset: true }) }),
})

async function requestToken(far: FarSide, { account, bound, ttlS }: Wanted, signal: AbortSignal) {
  const { config, issuer } = far
  const lifeS = ttlS === EXTENDED_LIFE_S ? EXTENDED_LIFE_S - 1 : Math.max(LEAST_LIFE_S, ttlS)
  const askedAtS = Math.floor(far.tools.clock.nowMs() / 1000)
  const answer = await ask(far, {
    method: 'POST',
    path: `serviceaccounts/${account}/token`,
    body: {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: {
        audiences: config.audiences,
        expirationSeconds: lifeS,
        ...(bound && { boundObjectRef: { apiVersion: 'v1', ...bound } }),
      },
    },
    signal,
  })
  const given = answer.status === 201 || answer.status === 200 ? tokenAnswer.safeParse(answer.json).data : undefined
  if (given === undefined) throw failure(issuer, answer, TOKEN_ADVICE)
  const endsAtS = Math.floor(Date.parse(given.status.expirationTimestamp) / 1000)
  if (endsAtS > askedAtS + lifeS + TOLERANCE_S)
    throw tooWide(issuer, `a token that lives ${endsAtS - askedAtS} s instead of ${lifeS} s`)
  const { audiences = [] } = given.spec
  if (config.audiences.length > 0 && audiences.some((one) => !config.audiences.includes(one)))
    throw tooWide(issuer, 'a token for audiences that were not asked for')
  return { secret: new Secret(given.status.token), expiresAt: Math.min(endsAtS, askedAtS + lifeS) }
}

const secretAnswer = z.object({ metadata: z.object({ name: z.string().min(1), uid: z.string().min(1) }) })

/** An empty Secret that says for whom it is there. */
async function bind(far: FarSide, grant: Grant, signal: AbortSignal): Promise<Bound> {
  const { sub, sub_iss, agent, task, lineage_hash } = subjectClaims(grant)
  const annotations = Object.entries({ sub, sub_iss, agent, task, lineage_hash, grant: grant.id })
  const answer = await ask(far, {
    method: 'POST',
    path: 'secrets',
    body: {
      apiVersion: 'v1',
      kind: 'Secret',
      type: 'Opaque',
      immutable: true,
      metadata: {
        name: `keyless-${uuidv7(far.tools.clock.nowMs())}`,
        labels: { 'app.kubernetes.io/managed-by': 'keyless' },
        annotations: Object.fromEntries(annotations.map(([name, value]) => [`keyless/${name}`, value])),
      },
    },
    signal,
  })
  const made = answer.status === 201 ? secretAnswer.safeParse(answer.json).data : undefined
  if (made === undefined) throw failure(far.issuer, answer, BIND_ADVICE)
  return { kind: 'Secret', name: made.metadata.name, uid: made.metadata.uid }
}

/** Tokens bound to it are void at once: the API server looks for the object at every use (Managing Service Accounts). */
async function unbind(far: FarSide, boundTo: Secret | undefined, signal: AbortSignal): Promise<void> {
  if (boundTo === undefined) return
  const { name, uid } = JSON.parse(boundTo.reveal()) as Bound
  const body = { apiVersion: 'v1', kind: 'DeleteOptions', preconditions: { uid } }
  const answer = await ask(far, { method: 'DELETE', path: `secrets/${name}`, body, signal })
  // Gone, or another object of this name: either way the token is void.
  if (answer.status === 200 || answer.status === 202 || answer.status === 404 || answer.status === 409) return
  throw failure(far.issuer, answer, BIND_ADVICE)
}

type Asked = Pick<IssuerRequest, 'method' | 'body' | 'signal'> & { readonly path: string }

async function ask(far: FarSide, { path, method, body, signal }: Asked): Promise<IssuerAnswer> {
  const { config, tools, fetch, issuer } = far
  const own = await tools.readSecret(config.token, signal)
  const url = `${config.server.replace(/\/+$/, '')}/api/v1/namespaces/${config.namespace}/${path}`
  const headers = { Accept: 'application/json', Authorization: `Bearer ${own.reveal()}` }
  return exchange(fetch, issuer, { method, url, headers, body, signal })
}

function identityOf(config: KubernetesConfig): string {
  const { server, addresses, namespace, service_account, audiences, bound_to, revocable, token } = config
  const wanted = [namespace, service_account, [...audiences].sort(), bound_to ?? null, revocable]
  return JSON.stringify(['kubernetes', server, addresses, wanted, referenceIdentity(token)])
}

function tooWide(issuer: string, what: string): GatewayError {
  return new GatewayError(
    'credential_too_wide',
    `${issuer} gave ${what}. Look at its settings for service account tokens.`,
  )
}

interface Advice {
  readonly asked: string
  readonly 403: string
  readonly 404: string
}

const TOKEN_ADVICE: Advice = {
  asked: 'a token of the service account',
  403: 'Allow the gateway’s own account "create" on "serviceaccounts/token" in this namespace.',
  404: 'Check namespace, service_account and bound_to: one of them is not there.',
}

const BIND_ADVICE: Advice = {
  asked: 'the Secret that a token is bound to',
  403: 'Allow the gateway’s own account "create" and "delete" on "secrets" in this namespace, or write revocable: false.',
  404: 'Check namespace: it is not there.',
}

function failure(issuer: string, { status, retryAfterMs }: IssuerAnswer, advice: Advice): GatewayError {
  if (isPassing(status)) return unavailable(issuer, `answered ${status}`, retryAfterMs)
  if (status >= 200 && status < 300) return unavailable(issuer, 'answered something that is not its API')
  const known =
    status === 401
      ? 'It does not know the token by which the gateway asks: look at token in settings.'
      : status === 403 || status === 404
        ? advice[status]
        : 'Check server, audiences and bound_to.'
  return new GatewayError('credential_rejected', `${issuer} refused ${advice.asked} (${status}). ${known}`)
}
