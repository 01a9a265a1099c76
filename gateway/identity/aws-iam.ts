/**
 * AWS roles and users, by a GetCallerIdentity request that they signed: we send it on, and STS says who signed it. AWS keeps
 * the key; all we need is that the request was made for us, now, and is used once.
 */
import { createHash } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { Workload } from '../protocol/identity.ts'
import { GatewayError } from '../protocol/problem.ts'
import { type Caller, readCaller } from './aws-answer.ts'
import { type CallerRequest, readCallerRequest, tooOldAtMs } from './aws-request.ts'
import type { GuardedFetch } from './key-set.ts'
import { agentOf } from './mapping.ts'
import { type Once, useOnce } from './once.ts'
import { type Refuse, refusing } from './refuse.ts'
import type { AwsTrust } from './trust-aws.ts'

export interface AwsIam {
  /** @param token base64 JSON, see `aws-request.ts`. @throws {GatewayError} `actor_invalid`, or that STS cannot be asked */
  verify(token: string): Promise<Workload>
}

export interface AwsIamOptions {
  /** Undefined: no AWS caller is anybody here. */
  readonly trust: AwsTrust | undefined
  /** Our own issuer identifier: what the request must have been signed for. */
  readonly issuer: string
  readonly fetchFor: (addresses: readonly string[]) => GuardedFetch
  readonly once: Once
  readonly clock: Clock
}

const TIMEOUT_MS = 5_000
/** Questions to STS at once. Anyone can have one asked; more would take the places of those that need no STS, and tire it. */
const MAX_ASKING = 32

export function createAwsIam(o: AwsIamOptions): AwsIam {
  const { trust } = o
  const fetch: GuardedFetch | undefined = trust && o.fetchFor(trust.addresses)
  let asking = 0
  async function answerTo(request: CallerRequest, send: GuardedFetch, refuse: Refuse): Promise<string> {
    if (asking >= MAX_ASKING)
      throw new GatewayError(
        'too_many_requests',
        'STS is being asked about many callers already. Try again in a moment.',
      )
    asking += 1
    try {
      return await ask(request, send, refuse)
    } finally {
      asking -= 1
    }
  }
  return {
    async verify(token) {
      const refuse = refusing('actor_invalid', 'The actor token')
      if (trust === undefined || fetch === undefined) throw refuse('no AWS account is configured under trust.aws')
      const rules = { hosts: trust.hosts, issuer: o.issuer, nowMs: o.clock.nowMs() }
      const request = readCallerRequest(token, rules, refuse)
      const caller = readCaller(await answerTo(request, fetch, refuse), refuse)
      if (!trust.accounts.includes(caller.account))
        throw refuse(`its AWS account ${caller.account} is not one of trust.aws.accounts`)
      // After STS: a request that it never answered may be sent again.
      const jti = createHash('sha256').update(request.signature).digest('base64url')
      const used = () => refuse('it was used before; sign a fresh one for every request')
      await useOnce(o.once, { of: 'aws-iam', jti, untilMs: tooOldAtMs(request) }, used)
      return workloadOf(caller, trust, Math.floor(tooOldAtMs(request) / 1000), refuse)
    },
  }
}

function workloadOf(caller: Caller, trust: AwsTrust, expiresAt: number, refuse: Refuse): Workload {
  const { arn, account, principalId, session } = caller
  const values = new Map([
    ['arn', arn],
    ['principal_id', principalId],
  ])
  return {
    id: trust.agents === undefined ? arn : agentOf(trust.agents, (name) => values.get(name), refuse),
    kind: 'aws-iam',
    issuer: account,
    ...(session !== undefined && { instance: session }),
    attributes: { arn, account, principal_id: principalId },
    expiresAt,
  }
}

async function ask(request: CallerRequest, fetch: GuardedFetch, refuse: Refuse): Promise<string> {
  const answer = await fetch(request.url, {
    method: 'POST',
    headers: { ...request.headers },
    body: request.body,
    redirect: 'manual', // an answer from anywhere else says nothing
    signal: AbortSignal.timeout(TIMEOUT_MS),
  })
  const text = await answer.text()
  if (answer.status === 200) return text
  if (answer.status >= 500 || answer.status === 429)
    throw new GatewayError('upstream_broken', `STS answered ${answer.status}. Try again later.`)
  throw refuse(`STS does not accept its signature (status ${answer.status}); sign a fresh one with living credentials`)
}
