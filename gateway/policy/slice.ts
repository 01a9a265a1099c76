/**
 * The policies that can have a say on one operation, so that the cost of a decision does not grow with policies about other
 * things. Leaving a policy out is sound only if its scope can never match; when in doubt it stays in.
 */
import type { EntityUidJson, PolicyJson } from '@cedar-policy/cedar-wasm/nodejs'
import type { Operation } from '../protocol/service.ts'
import type { SliceNeeds } from './attributes/needs.ts'
import { type Reading, readingsOf } from './attributes/reads.ts'
import { fixedFor } from './question.ts'
import { plainUid, scopeActions } from './scope.ts'
import { isNeverMet } from './settled.ts'
import type { Policy } from './source/policy-file.ts'

/** What is asked, as far as the scope of a policy can tell: an action with its groups, and a resource in a service. */
export interface Subject {
  /** A call goes to an endpoint; a grant is made for a service. */
  readonly kind: 'Endpoint' | 'Service'
  /** Operation name, `mint` or `delegate`. */
  readonly action: string
  readonly groups: readonly string[]
  readonly service: string
}

export interface Slice extends SliceNeeds {
  /** Id under which Cedar keeps the parsed policies; undefined when there are none, which denies. */
  readonly preparsed: string | undefined
  /** Id under which Cedar keeps the schema of the service; parsed when it is first asked for. */
  schema(): string
  /** The same for what the slice is asked: its action, and the attributes that its policies read. */
  narrowSchema(): string
  readonly policies: ReadonlyMap<string, Policy>
  readonly readings: ReadonlySet<Reading>
  readonly asked: Asked
}

/** What Cedar is asked about: the policies of the slice but for those that nothing can come of at its operation (`settled.ts`). */
export interface Asked {
  readonly policies: readonly Policy[]
  readonly readings: ReadonlySet<Reading>
  /** One of them may ask of what service the endpoint is. */
  readonly isPlaced: boolean
}

export function appliesTo(policy: Policy, subject: Subject): boolean {
  return actionMatches(policy.json, subject) && resourceMatches(policy.json.resource, subject)
}

export function readingsOfAll(policies: readonly Policy[]): Set<Reading> {
  const all = new Set<Reading>()
  for (const policy of policies) for (const reading of readingsOf(policy.json)) all.add(reading)
  return all
}

export function askedOf(members: readonly Policy[], operation: Operation | undefined): Asked {
  const fixed = operation && fixedFor(operation)
  const policies = fixed ? members.filter(({ json }) => !isNeverMet(json, fixed)) : members
  return { policies, readings: readingsOfAll(policies), isPlaced: policies.some(({ json }) => looksUp(json)) }
}

/** Whether it may look at what is above an entity: in doubt it does. */
function looksUp({ principal, resource, conditions }: PolicyJson): boolean {
  const isAbove = [principal, resource].some(({ op, ...scope }) => op === 'in' || 'in' in scope)
  return isAbove || JSON.stringify(conditions).includes('"in":')
}

/** Whether the policy names the action itself, not a group it belongs to. */
export function names(policy: Policy, action: string): boolean {
  return scopeActions(policy.json).includes(action)
}

/** Whether its scope names operations, or groups of operations of one service, and nothing that reaches further. */
export function namesServices(policy: Policy): boolean {
  const actions = scopeActions(policy.json)
  return actions.length > 0 && actions.every((action) => action.includes(':'))
}

function actionMatches(policy: PolicyJson, subject: Subject): boolean {
  if (policy.action.op === 'All') return true
  const wanted = scopeActions(policy)
  return (
    wanted.includes(subject.action) || (policy.action.op === 'in' && wanted.some((id) => subject.groups.includes(id)))
  )
}

function resourceMatches(scope: PolicyJson['resource'], subject: Subject): boolean {
  if (scope.op === 'All') return true
  if (scope.op === 'is') {
    if (scope.entity_type !== subject.kind) return false
    return scope.in === undefined || !('entity' in scope.in) || isAtOrAbove(scope.in.entity, subject)
  }
  if (!('entity' in scope)) return true
  if (scope.op === '==') return isItself(plainUid(scope.entity), subject)
  return isAtOrAbove(scope.entity, subject)
}

function isAtOrAbove(uid: EntityUidJson, subject: Subject): boolean {
  const { type, id } = plainUid(uid)
  return (type === 'Service' && id === subject.service) || isItself({ type, id }, subject)
}

function isItself(uid: { type: string; id: string }, { kind, service, action }: Subject): boolean {
  return uid.type === kind && uid.id === (kind === 'Service' ? service : action)
}
