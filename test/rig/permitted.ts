/** A call as it is after policy has allowed it, for tests of what comes behind. */
import type { Ask, Decision } from '../../gateway/protocol/decision.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import type { Endpoint } from '../../gateway/protocol/service.ts'

export const ALLOWED: Decision = {
  effect: 'allow',
  code: undefined,
  detail: '',
  policyIds: [],
  policySet: 'sha256:0',
  errors: [],
  obligations: { ttlS: undefined, singleUse: false },
  levels: [],
}

export function permitted(of: { readonly grant: Grant; readonly endpoint: Endpoint }) {
  const { rawPath } = of.endpoint
  const ask: Ask = { ...of, method: 'GET', rawPath, sourceAddress: '127.0.0.1', nowMs: 0 }
  return { ...of, ask, decision: ALLOWED }
}
