/** The scope of a policy: which actions it names, and what can be asked of it at all. */
import type { EntityUidJson, PolicyJson } from '@cedar-policy/cedar-wasm/nodejs'

/** Ids of the actions in its scope; none where it leaves them open. */
export function scopeActions({ action }: PolicyJson): string[] {
  if (action.op === 'All') return []
  if ('entities' in action) return action.entities.map((uid) => plainUid(uid).id)
  return 'entity' in action ? [plainUid(action.entity).id] : []
}

/** Whether it can decide on calls, on the making of grants, or on both. */
export function asksOf(policy: PolicyJson): readonly ('call' | 'grant')[] {
  const actions = scopeActions(policy)
  const isIssuing = (action: string) => action === 'mint' || action === 'delegate'
  const { resource } = policy
  const type = resource.op === 'is' ? resource.entity_type : undefined
  const mayCall = type !== 'Service' && (actions.length === 0 || !actions.every(isIssuing))
  const mayIssue = type !== 'Endpoint' && (actions.length === 0 || actions.some(isIssuing))
  return [...(mayCall ? (['call'] as const) : []), ...(mayIssue ? (['grant'] as const) : [])]
}

export function plainUid(uid: EntityUidJson): { type: string; id: string } {
  return '__entity' in uid ? uid.__entity : uid
}

/** Every entity that a policy names, wherever it does. */
export function entitiesIn(node: unknown): { type: string; id: string }[] {
  if (typeof node !== 'object' || node === null) return []
  if ('type' in node && 'id' in node && typeof node.type === 'string' && typeof node.id === 'string')
    return [plainUid({ type: node.type, id: node.id })]
  return Object.values(node).flatMap(entitiesIn)
}
