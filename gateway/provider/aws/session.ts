/**
 * One session of a role: AssumeRole, signed with the source keys, or AssumeRoleWithWebIdentity, which needs no signature. Parameters
 * as in the STS API reference, version 2011-06-15.
 */

import { hash } from 'node:crypto'
import { AWS4 } from '../../protocol/aws-claim.ts'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Secret } from '../../protocol/secret.ts'
import { boundedFetch } from '../bounded-fetch.ts'
import { unreached } from '../oauth/issuer-exchange.ts'
import type { Assertions, Credential, GuardedFetch, IssueRequest } from '../provider.ts'
import type { ReadSecret } from '../reference.ts'
import { readSession, stsFailure } from './answer.ts'
import { canonicalRequest } from './canonical.ts'
import { lineageTags, sessionName, sourceIdentity } from './lineage.ts'
import { sessionPolicy } from './policy.ts'
import type { AwsConfig } from './schema.ts'
import { createSigner, credentialScope, type Signer, stampOf } from './signer.ts'
import type { AwsTime } from './time.ts'

export interface SessionTools {
  readonly fetch: GuardedFetch
  readonly clock: Clock
  readonly time: AwsTime
  readonly readSecret: ReadSecret
  readonly assertions: Assertions
}

/** Seconds; STS gives no less. */
const MIN_LIFE_S = 900
/** Seconds by which the end may lie beyond what was asked for: the clocks of two machines. */
const TOLERANCE_S = 120
const ASSERTION_LIFE_S = 300

/** @throws {GatewayError} `credential_unavailable`, `credential_rejected`, `credential_too_wide`, `credential_unconfigured` */
export async function assumeRole(
  config: AwsConfig,
  tools: SessionTools,
  request: IssueRequest,
  signal: AbortSignal,
): Promise<Credential> {
  const durationS = Math.max(MIN_LIFE_S, Math.min(config.duration_s, Math.floor(request.ttlS)))
  const url = new URL(stsUrl(config))
  const form = parameters(config, request, durationS)
  const signer = await authenticate(form, config, tools, { request, signal })
  const askedAtS = Math.floor(tools.clock.nowMs() / 1000)
  const { status, text, dateMs } = await send(url, form, config, { tools, signer, signal })
  if (status !== 200) {
    tools.time.learn(dateMs)
    throw stsFailure(status, text, url.host)
  }
  const session = readSession(text, url.host)
  // By its own clock, if it says what that shows: ours may differ.
  const lifeS = session.expiresAt - Math.floor((dateMs ?? tools.clock.nowMs()) / 1000)
  if (lifeS > durationS + TOLERANCE_S)
    throw new GatewayError(
      'credential_too_wide',
      `STS at ${url.host} gave a session of ${lifeS} s, and ${durationS} s were asked for.`,
    )
  return {
    secret: session.secretAccessKey,
    parts: { access_key_id: session.accessKeyId, session_token: session.sessionToken },
    expiresAt: askedAtS + Math.min(lifeS, durationS),
    ephemeral: true,
  }
}

/** Regional, as AWS recommends: sessions of the global endpoint are not valid in every region. */
export function stsUrl({ region, sts_url }: AwsConfig): string {
  return sts_url ?? `https://sts.${region}.amazonaws.com${region.startsWith('cn-') ? '.cn' : ''}/`
}

function parameters(config: AwsConfig, { grant, service }: IssueRequest, durationS: number): URLSearchParams {
  const form = new URLSearchParams({
    Version: '2011-06-15',
    RoleArn: config.role_arn ?? '',
    RoleSessionName: sessionName(grant),
    DurationSeconds: String(durationS),
  })
  if (config.session_policy !== 'none') form.set('Policy', sessionPolicy(service, grant, config))
  for (const [i, arn] of config.policy_arns.entries()) form.set(`PolicyArns.member.${i + 1}.arn`, arn)
  return form
}

interface Asking {
  readonly request: IssueRequest
  readonly signal: AbortSignal
}

/** Who asks: as parameters, or as what the request is to be signed with. */
async function authenticate(
  form: URLSearchParams,
  config: AwsConfig,
  tools: SessionTools,
  { request, signal }: Asking,
): Promise<Signer | undefined> {
  const { source } = config
  const { grant } = request
  if ('access_key_id' in source) {
    form.set('Action', 'AssumeRole')
    if (config.external_id !== undefined) form.set('ExternalId', config.external_id)
    if (config.source_identity) form.set('SourceIdentity', sourceIdentity(grant))
    for (const [i, [key, value]] of Object.entries(tagsOf(config, request)).entries()) {
      form.set(`Tags.member.${i + 1}.Key`, key)
      form.set(`Tags.member.${i + 1}.Value`, value)
      if (config.transitive_tags) form.set(`TransitiveTagKeys.member.${i + 1}`, key)
    }
    return createSigner(await sourceKeys(source, tools.readSecret, signal))
  }
  form.set('Action', 'AssumeRoleWithWebIdentity')
  const token =
    'token' in source
      ? await tools.readSecret(source.token, signal)
      : await assertion(config, source.assertion.audience, tools, request)
  form.set('WebIdentityToken', token.reveal())
  return undefined
}

/** Long-term keys, or keys of a session that somebody else opened. */
export async function sourceKeys(
  source: Extract<AwsConfig['source'], { access_key_id: unknown }>,
  readSecret: ReadSecret,
  signal: AbortSignal,
): Promise<{ secret: Secret; parts: Record<string, Secret> }> {
  const [access_key_id, secret] = await Promise.all([
    readSecret(source.access_key_id, signal),
    readSecret(source.secret_access_key, signal),
  ])
  const session_token = source.session_token && (await readSecret(source.session_token, signal))
  return { secret, parts: { access_key_id, ...(session_token && { session_token }) } }
}

/** Tags and source identity of such a session are claims: IAM user guide, "Passing session tags using AssumeRoleWithWebIdentity". */
function assertion(
  config: AwsConfig,
  audience: string,
  { assertions }: SessionTools,
  request: IssueRequest,
): Promise<Secret> {
  const { grant } = request
  const tags = Object.entries(tagsOf(config, request))
  const claims = {
    sub: sourceIdentity(grant),
    ...(tags.length > 0 && {
      'https://aws.amazon.com/tags': {
        principal_tags: Object.fromEntries(tags.map(([key, value]) => [key, [value]])),
        ...(config.transitive_tags && { transitive_tag_keys: tags.map(([key]) => key) }),
      },
    }),
    ...(config.source_identity && { 'https://aws.amazon.com/source_identity': sourceIdentity(grant) }),
  }
  // RS256: what identity providers in IAM have always taken.
  return assertions.sign(claims, { audience, lifeS: ASSERTION_LIFE_S, algorithm: 'RS256' })
}

function tagsOf({ tags, lineage_tags }: AwsConfig, { grant }: IssueRequest): Record<string, string> {
  return lineage_tags ? { ...tags, ...lineageTags(grant) } : tags
}

interface Sending {
  readonly tools: SessionTools
  readonly signer: Signer | undefined
  readonly signal: AbortSignal
}

async function send(
  url: URL,
  form: URLSearchParams,
  config: AwsConfig,
  { tools, signer, signal }: Sending,
): Promise<{ status: number; text: string; dateMs: number | undefined }> {
  const body = form.toString()
  const headers = ['Host', url.host, 'Content-Type', 'application/x-www-form-urlencoded; charset=utf-8']
  if (signer !== undefined) sign(url, headers, body, { signer, region: config.region, nowMs: tools.time.nowMs() })
  let dateMs: number | undefined
  const bounded = boundedFetch(async (input, init) => {
    const response = await tools.fetch(input, init)
    dateMs = dateOf(response.headers.get('date'))
    return response
  })
  const fields = Object.fromEntries(
    Array.from({ length: headers.length / 2 - 1 }, (_, i) => [headers[2 * i + 2] ?? '', headers[2 * i + 3] ?? '']),
  )
  try {
    const response = await bounded.fetch(url, { method: 'POST', headers: fields, body, redirect: 'manual', signal })
    return { status: response.status, text: await response.text(), dateMs }
  } catch (cause) {
    throw unreached(cause, `STS at ${url.host}`, signal)
  }
}

function sign(
  url: URL,
  headers: string[],
  body: string,
  { signer, region, nowMs }: { signer: Signer; region: string; nowMs: number },
): void {
  const stamp = stampOf({ algorithm: AWS4, region, service: 'sts' }, nowMs)
  headers.push('X-Amz-Date', stamp.date)
  if (signer.sessionToken !== undefined) headers.push('X-Amz-Security-Token', signer.sessionToken)
  const canonical = canonicalRequest(
    { method: 'POST', path: url.pathname + url.search, headers },
    hash('sha256', body),
    false,
  )
  const credential = `${signer.accessKeyId}/${credentialScope(stamp)}`
  headers.push(
    'Authorization',
    `${AWS4} Credential=${credential}, SignedHeaders=${canonical.signedHeaders}, Signature=${signer.signature(canonical, stamp)}`,
  )
}

function dateOf(text: string | null): number | undefined {
  const ms = text === null ? Number.NaN : Date.parse(text)
  return Number.isNaN(ms) ? undefined : ms
}
