/**
 * What a person should look at twice in policies that load: they are valid, and may not mean what their authors meant, or are due.
 * Pure: the day and what is known of credentials are handed in.
 */
import type { Operation, Service } from '../../protocol/service.ts'
import type { Catalogue } from '../catalogue/catalogue.ts'
import { UNMANAGED } from '../catalogue/site.ts'
import { appliesTo, names, namesServices, type Subject } from '../slice.ts'
import type { Bundle } from '../source/bundle.ts'
import type { Policy } from '../source/policy-file.ts'
import { groupsOf, mustBeNamed, namedOperations } from '../vocabulary.ts'
import { atomsIn, termOf } from './conditions.ts'

export interface PolicyRemark {
  /** `policies/own.cedar:12`, or the service. */
  readonly where: string
  readonly says: string
  readonly fix: string
}

export interface Reviewing {
  readonly bundle: Bundle
  readonly catalogue: Catalogue
  /** `2026-11-22` */
  readonly today: string
  /** Seconds that a grant may live at most. */
  readonly ceilingS: number
  /** Whether the credential of a service never expires by itself. */
  isStanding(service: Service): boolean
}

/** Seconds and uses that an operation of this kind is worth at most (DESIGN §2, requirement 11). */
const SENSITIVE_TTL_S = 60

export function reviewPolicies(reviewing: Reviewing): PolicyRemark[] {
  const { bundle, catalogue } = reviewing
  const asked = [...catalogue.services, UNMANAGED].flatMap((service) => subjectsOf(service))
  return [
    ...bundle.policies.flatMap((policy) => {
      const reached = asked.filter(({ subject }) => appliesTo(policy, subject))
      return [unreachable, shadowed, tooLong, sensitive, overdue].flatMap((look) => look(policy, reached, reviewing))
    }),
    ...twins(bundle.policies),
    ...grantless(bundle.policies, asked),
    ...standing(reviewing, asked),
  ]
}

interface Asked {
  readonly service: Service
  /** Undefined: making a grant. */
  readonly operation: Operation | undefined
  readonly subject: Subject
}

function subjectsOf(service: Service): Asked[] {
  const { name } = service
  const calls = namedOperations(service).map((operation): Asked => {
    const subject = { kind: 'Endpoint', action: operation.name, groups: groupsOf(operation), service: name } as const
    return { service, operation, subject }
  })
  const grants = (['mint', 'delegate'] as const).map((action): Asked => {
    return { service, operation: undefined, subject: { kind: 'Service', action, groups: [], service: name } }
  })
  return [...calls, ...grants]
}

type Look = (policy: Policy, reached: readonly Asked[], reviewing: Reviewing) => PolicyRemark[]

function remark(policy: Policy, says: string, fix: string): PolicyRemark {
  return { where: `${policy.file}:${policy.line}`, says: `${policy.id} ${says}`, fix }
}

const unreachable: Look = (policy, reached) => {
  // About a service that nobody selected: it waits for that.
  if (reached.length === 0 && namesServices(policy)) return []
  if (reached.length === 0)
    return [
      remark(policy, 'is about nothing that the services here have', 'select the service that it is for, or remove it'),
    ]
  const isPermit = policy.json.effect === 'permit'
  if (!isPermit || reached.some(({ operation }) => operation === undefined || isEnough(policy, operation))) return []
  const fix = 'name the operation itself: action == Action::"service:operation"'
  return [
    remark(policy, 'never allows anything: all that it reaches has to be named by the policy that allows it', fix),
  ]
}

function isEnough(policy: Policy, operation: Operation): boolean {
  return !mustBeNamed(operation) || names(policy, operation.name)
}

/** A forbid without conditions beats whatever stands beside it. */
const shadowed: Look = (policy, reached, { bundle }) => {
  if (policy.json.effect !== 'permit' || reached.length === 0) return []
  const always = bundle.policies.filter(
    ({ json }) =>
      json.effect === 'forbid' &&
      json.conditions.length === 0 &&
      (json.principal.op === 'All' || (json.principal.op === 'is' && json.principal.in === undefined)),
  )
  const by = always.find((forbid) => reached.every(({ subject }) => appliesTo(forbid, subject)))
  return by === undefined
    ? []
    : [remark(policy, `never allows anything: ${by.id} forbids all of it`, 'remove one of the two')]
}

const tooLong: Look = (policy, reached, { ceilingS }) => {
  const { ttlS } = policy.obligations
  const fix = `write ${ceilingS} or less, or raise grants.max_ttl_s`
  const ttl = ttlS !== undefined && ttlS > ceilingS
  const remarks = ttl ? [remark(policy, `says @ttl("${ttlS}"), and no grant lives longer than ${ceilingS} s`, fix)] : []
  if (!reached.some(({ operation }) => operation === undefined)) return remarks
  const limits = atomsIn(termOf(policy.json)).map(({ text }) => Number(/^context\.ttl_s <=? (\d+)$/.exec(text)?.[1]))
  const beyond = limits.find((limit) => limit > ceilingS)
  if (beyond === undefined) return remarks
  return [...remarks, remark(policy, `lets grants live ${beyond} s, and none lives longer than ${ceilingS} s`, fix)]
}

/** Whoever names what cannot be undone, or what answers with a credential, decides how long and how often too. */
const sensitive: Look = (policy, reached) => {
  const { ttlS, singleUse } = policy.obligations
  const isShort = ttlS !== undefined && ttlS <= SENSITIVE_TTL_S
  if (policy.json.effect !== 'permit' || (isShort && singleUse)) return []
  const named = reached.flatMap(({ operation }) =>
    operation !== undefined && (operation.irreversible || operation.returnsSecret) && names(policy, operation.name)
      ? [operation.name]
      : [],
  )
  if (named.length === 0) return []
  const missing = [...(isShort ? [] : [`@ttl("${SENSITIVE_TTL_S}")`]), ...(singleUse ? [] : ['@single_use("true")'])]
  return [
    remark(
      policy,
      `permits ${listed(named)}, which cannot be undone or answers with a credential, without ${missing.join(' and ')}`,
      `add ${missing.join(' and ')}`,
    ),
  ]
}

const overdue: Look = (policy, _, { today }) => {
  const { review, owner } = policy
  if (review === undefined || review >= today) return []
  return [remark(policy, `was to be reviewed by ${review}`, `${owner} reviews it, and writes the next date`)]
}

/** The same words under another name: whoever changes one forgets the other. */
function twins(policies: readonly Policy[]): PolicyRemark[] {
  const first = new Map<string, Policy>()
  return policies.flatMap((policy) => {
    const { annotations: _, ...said } = policy.json
    const key = JSON.stringify([said, policy.obligations])
    const before = first.get(key)
    if (before === undefined) {
      first.set(key, policy)
      return []
    }
    return [remark(policy, `says the same as ${before.id}`, 'remove one of the two')]
  })
}

/** Whoever may call has to have a grant first. Where nothing permits calls either, these are policies to be put beside others. */
function grantless(policies: readonly Policy[], asked: readonly Asked[]): PolicyRemark[] {
  const permits = policies.filter(({ json }) => json.effect === 'permit')
  const isPermitted = ({ subject }: Asked) => permits.some((permit) => appliesTo(permit, subject))
  const isAsked = asked.some((one) => one.operation !== undefined && isPermitted(one))
  if (!isAsked || asked.some((one) => one.subject.action === 'mint' && isPermitted(one))) return []
  return [
    {
      where: 'policies',
      says: 'nothing permits Action::"mint": nobody can open a task, so what is permitted here is never called',
      fix: 'permit it for whom you want, as policies/defaults.cedar does, or check these with the policies that do',
    },
  ]
}

/** What harms most is reached with a key that lives until somebody changes it. */
function standing({ bundle, isStanding }: Reviewing, asked: readonly Asked[]): PolicyRemark[] {
  const permits = bundle.policies.filter(({ json }) => json.effect === 'permit')
  const reached = asked.filter(({ service, operation, subject }) => {
    if (operation === undefined || service === UNMANAGED || !isHarmful(operation) || !isStanding(service)) return false
    return permits.some((permit) => appliesTo(permit, subject) && isEnough(permit, operation))
  })
  return [...Map.groupBy(reached, ({ service }) => service)].map(([service, found]) => ({
    where: `service ${service.name}`,
    says: `its credential ${service.credential} never expires, and policies permit ${listed(found.map(({ operation }) => operation?.name ?? ''))}`,
    fix: 'use a provider of short-lived credentials, or forbid these',
  }))
}

function isHarmful({ id, sensitivity, irreversible, returnsSecret }: Operation): boolean {
  return id !== 'unlisted' && (sensitivity === 'restricted' || irreversible || returnsSecret)
}

function listed(all: readonly string[]): string {
  const shown = all.slice(0, 3).join(', ')
  return all.length > 3 ? `${shown} and ${all.length - 3} more` : shown
}
