/**
 * AWS: a session of a role for each grant, no wider than the grant, under the names of its lineage; and requests that agents signed
 * with placeholders signed with it. Also for servers that speak S3 and have no STS, with the source keys themselves.
 */

import type { Clock } from '../../protocol/clock.ts'
import type { Secret } from '../../protocol/secret.ts'
import { requireOwnTarget } from '../placement/placement.ts'
import type { Assertions, Credential, FetchFor, Provider } from '../provider.ts'
import { type ReadSecret, referenceIdentity } from '../reference.ts'
import { dateOf, isRefusal, rejectionOf } from './rejection.ts'
import { resigned } from './resign.ts'
import type { AwsConfig } from './schema.ts'
import { assumeRole, sourceKeys, stsUrl } from './session.ts'
import { createSigner, type Signer } from './signer.ts'
import { createAwsTime } from './time.ts'

export interface AwsTools {
  readonly fetchFor: FetchFor
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly assertions: Assertions
}

export function createAws(config: AwsConfig, tools: AwsTools): Provider {
  const time = createAwsTime(tools.clock)
  const session = { ...tools, time, fetch: tools.fetchFor(config.addresses) }
  /** Keys that are derived once per credential. */
  const signers = new WeakMap<Secret, Signer>()

  function signerFor(credential: Credential): Signer {
    const known = signers.get(credential.secret) ?? createSigner(credential)
    signers.set(credential.secret, known)
    return known
  }

  return {
    name: 'aws',
    narrows: config.session === 'role' && config.session_policy !== 'none' ? 'policy' : 'none',
    identity: identityOf(config),
    async issue(request, signal) {
      if (config.session === 'role') return assumeRole(config, session, request, signal)
      if (!('access_key_id' in config.source)) throw new Error('settings have let keys be missing')
      const keys = await sourceKeys(config.source, tools.readSecret, signal)
      return { ...keys, expiresAt: Number.POSITIVE_INFINITY, ephemeral: false }
    },
    attach(credential, outbound) {
      requireOwnTarget(outbound)
      const { region, regions } = config
      return resigned(outbound, { region, regions, signer: signerFor(credential), nowMs: time.nowMs() })
    },
    // The key never travels, and its id is no secret.
    derived: ({ parts }) => (parts?.session_token ? [parts.session_token] : []),
    isRejection: (answer) => (isRefusal(answer) && time.isOff(dateOf(answer)) ? true : rejectionOf(answer)),
    accommodates: (_credential, answer) => time.learn(dateOf(answer)),
  }
}

/** Everything that changes what its sessions can do; references are named, not read. */
function identityOf(config: AwsConfig): string {
  const { source, session, role_arn, regions, external_id, session_policy, policy_arns, tags } = config
  const who =
    'access_key_id' in source
      ? [
          referenceIdentity(source.access_key_id),
          referenceIdentity(source.secret_access_key),
          source.session_token ? referenceIdentity(source.session_token) : null,
        ]
      : 'token' in source
        ? ['token', referenceIdentity(source.token)]
        : ['assertion', source.assertion.audience]
  const told = [config.source_identity, config.lineage_tags, config.transitive_tags, Object.entries(tags).sort()]
  return JSON.stringify([
    'aws',
    stsUrl(config),
    config.addresses,
    who,
    session,
    role_arn ?? null,
    config.region,
    regions ?? null,
    external_id ?? null,
    config.duration_s,
    session_policy,
    policy_arns,
    told,
  ])
}
