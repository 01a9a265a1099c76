/**
 * Projected service-account tokens of Kubernetes. Only those bound to a pod: its uid is the instance, so that a token copied
 * out of a pod is seen to be that pod's. Legacy tokens from secrets have no expiry, audience or pod, and are refused.
 */
import type { Workload } from '../protocol/identity.ts'
import { type Claims, type Jwt, type JwtTools, PLAIN_JWT, rulesOf, textOf, verifyJwt } from './jwt.ts'
import { isRecord } from './key-set.ts'
import { agentOf, attributesOf } from './mapping.ts'
import type { Refuse } from './refuse.ts'
import type { TrustOf } from './trust.ts'

export async function verifyKubernetes(jwt: Jwt, row: TrustOf<'kubernetes'>, tools: JwtTools): Promise<Workload> {
  const { refuse } = tools
  if (Object.keys(jwt.claims).some((name) => name.startsWith('kubernetes.io/')))
    throw refuse('it is a legacy token from a secret; mount a projected one (serviceAccountToken with this audience)')
  const expiresAt = await verifyJwt(jwt, { ...rulesOf(row), typ: PLAIN_JWT }, tools)
  const pod = podOf(jwt.claims, refuse)
  const { instance, ...facts } = pod
  return {
    id: agentOf(row.agents, (name) => facts[name as keyof typeof facts], refuse),
    kind: 'kubernetes',
    issuer: row.issuer,
    instance,
    attributes: { ...facts, ...attributesOf(row.claims, jwt.claims, refuse) },
    expiresAt,
  }
}

function podOf(claims: Claims, refuse: Refuse) {
  const bound = member(claims, 'kubernetes.io', refuse)
  const account = member(bound, 'serviceaccount', refuse)
  const pod = member(bound, 'pod', refuse)
  const namespace = textOf(bound, 'namespace', refuse)
  const name = textOf(account, 'name', refuse)
  // The subject is what Kubernetes itself authorises by; the object must speak of the same account.
  if (claims.sub !== `system:serviceaccount:${namespace}:${name}`)
    throw refuse('its subject is another service account than the one in kubernetes.io')
  return {
    namespace,
    service_account: name,
    service_account_uid: textOf(account, 'uid', refuse),
    pod: textOf(pod, 'name', refuse),
    ...(isRecord(bound.node) && { node: textOf(bound.node, 'name', refuse) }),
    instance: textOf(pod, 'uid', refuse),
  }
}

function member(claims: Claims, name: string, refuse: Refuse): Claims {
  const value = claims[name]
  if (isRecord(value)) return value
  throw refuse(`it has no ${name}: only tokens bound to a pod are accepted`)
}
