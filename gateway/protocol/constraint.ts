/**
 * Constraints of an authority that a request alone can meet or not: address, region, time, sensitivity, parameters. Budgets are
 * counted by the grants room, approval is asked for by whoever decides. A constraint that is not known is met by nothing.
 */
import { cidrContains, parseAddress, parseCidr } from './cidr.ts'
import type { Constraints, ParameterRule, Sensitivity } from './grant.ts'
import { type Found, type Parameter, parseParameter, type Readable, readParameter } from './parameter.ts'
import { satisfies } from './parameter-rule.ts'
import type { Endpoint } from './service.ts'

/** What constraints are held against. `sourceAddress` is the peer's, as the socket shows it. */
export interface Circumstances extends Readable {
  readonly endpoint: Endpoint
  readonly sourceAddress: string
  /** Milliseconds since the Unix epoch. */
  readonly nowMs: number
  /** Regions of the settings that the address is in; none when it is in no known one. Absent: none is drawn. */
  regionsOf?(address: string): readonly string[]
}

/** What is not met, as a sentence for the agent; undefined when all is well. */
export type Condition = (facts: Circumstances) => string | undefined

/** Weakest first. */
export const APPROVALS = ['none', 'notify', 'single', 'quorum'] as const
/** Least first. */
export const SENSITIVITIES = ['public', 'internal', 'confidential', 'restricted'] as const

type Table = { readonly [K in keyof Required<Constraints>]: (bound: Required<Constraints>[K]) => readonly Condition[] }

const elsewhere = (): readonly Condition[] => []

const conditions: Table = {
  max_calls: elsewhere,
  max_bytes: elsewhere,
  rate: elsewhere,
  single_use: elsewhere,
  approval: (approval) =>
    APPROVALS.includes(approval)
      ? []
      : [() => 'The approval that the grant asks for is not known here, so nothing meets it.'],
  not_before: (from) => [
    ({ nowMs }) =>
      nowMs >= from * 1000 ? undefined : `It is allowed from ${instant(from)} on (not_before). Wait until then.`,
  ],
  not_after: (until) => [
    ({ nowMs }) =>
      nowMs < until * 1000
        ? undefined
        : `It was allowed until ${instant(until)} (not_after). Ask the grantor for a new grant.`,
  ],
  source: sourceCondition,
  geo: geoCondition,
  sensitivity_max: sensitivityCondition,
  params: (rules) => Object.entries(rules).map(([key, rule]) => parameterCondition(key, rule)),
}

/** Names of all constraints, in the order in which they are written. */
export const CONSTRAINT_NAMES: readonly string[] = [
  'max_calls',
  'max_bytes',
  'rate',
  'single_use',
  'not_before',
  'not_after',
  'source',
  'geo',
  'params',
  'sensitivity_max',
  'approval',
] satisfies (keyof Constraints)[]

export function conditionsOf(constraints: Constraints): readonly Condition[] {
  return Object.entries(constraints).flatMap(([name, bound]) =>
    isConstraintName(name)
      ? (conditions[name] as (bound: unknown) => readonly Condition[])(bound)
      : [() => `The constraint ${JSON.stringify(name)} of the grant is not known here, so nothing meets it.`],
  )
}

export function isConstraintName(name: string): name is keyof Constraints {
  return CONSTRAINT_NAMES.includes(name)
}

/** Whether calls or bytes are counted against it. */
export function hasBudget({ max_calls, max_bytes, rate, single_use }: Constraints): boolean {
  return max_calls !== undefined || max_bytes !== undefined || rate !== undefined || single_use === true
}

function sourceCondition(ranges: readonly string[]): readonly Condition[] {
  const cidrs = ranges.flatMap((range) => parseCidr(range) ?? [])
  return [
    ({ sourceAddress }) => {
      const address = parseAddress(sourceAddress)
      if (address !== undefined && cidrs.some((cidr) => cidrContains(cidr, address))) return undefined
      return `The caller's address ${shown(sourceAddress)} is outside ${ranges.join(', ')} (source). Call from there.`
    },
  ]
}

function geoCondition(regions: readonly string[]): readonly Condition[] {
  return [
    ({ sourceAddress, regionsOf }) => {
      const found = regionsOf?.(sourceAddress) ?? []
      if (found.some((region) => regions.includes(region))) return undefined
      const where = found.length === 0 ? 'in no known region' : `in ${found.join(', ')}`
      return `The caller's address ${shown(sourceAddress)} is ${where}; allowed: ${regions.join(', ')} (geo). Call from there.`
    },
  ]
}

function sensitivityCondition(most: Sensitivity): readonly Condition[] {
  const rank = SENSITIVITIES.indexOf(most)
  return [
    ({ endpoint: { operation } }) => {
      const own = SENSITIVITIES.indexOf(operation.sensitivity)
      if (own !== -1 && own <= rank) return undefined
      return `The operation is ${operation.sensitivity}; allowed is up to ${most} (sensitivity_max). Ask the grantor for more.`
    },
  ]
}

function parameterCondition(key: string, rule: ParameterRule): Condition {
  const parameter = parseParameter(key)
  if (parameter === undefined)
    return () => `The parameter ${JSON.stringify(key)} of the grant is neither in query nor body.`
  return (facts) => parameterFault(key, parameter, rule, readParameter(parameter, facts))
}

function parameterFault(key: string, { place }: Parameter, rule: ParameterRule, found: Found): string | undefined {
  const allowed = `allowed: ${shown(rule)} (params).`
  if ('fault' in found) return `The parameter ${key} ${found.fault}; ${allowed}`
  return satisfies(rule, found.value, place) ? undefined : `The parameter ${key} is ${shown(found.value)}; ${allowed}`
}

function shown(value: unknown): string {
  const text = JSON.stringify(value) ?? 'nothing'
  return text.length > 120 ? `${text.slice(0, 120)}…` : text
}

function instant(seconds: number): string {
  return new Date(seconds * 1000).toISOString()
}
