/** Runs `*.test.yaml`: asks each case of the policies as a gateway would, and compares the answer with what is expected. */
import type { Decision } from '../protocol/decision.ts'
import type { Value } from './attributes.ts'
import type { Bundle } from './bundle.ts'
import type { Catalogue } from './catalogue.ts'
import { createPolicy } from './evaluation.ts'
import {
  attributesOf,
  callAsk,
  destinationOf,
  exampleOf,
  factsOf,
  issuingOf,
  type Kind,
  parseCall,
  supposingEngine,
  type Written,
  type WrittenCall,
} from './supposed.ts'
import type { TestCase, TestFile } from './testing-file.ts'
import { namedOperations } from './vocabulary.ts'

export interface CaseResult {
  readonly name: string
  /** What was not as expected; empty: all is. */
  readonly faults: readonly string[]
  /** Policies that decided. */
  readonly policyIds: readonly string[]
  readonly ms: number
}

/** What is tested: the policies, and the services that they speak of. */
export interface Subject {
  readonly bundle: Bundle
  readonly catalogue: Catalogue
}

/** Every case of the file; one that names several requests or operations is as many. */
export async function runTests(file: TestFile, subject: Subject): Promise<CaseResult[]> {
  const results: CaseResult[] = []
  for (const test of file.cases)
    for (const single of singles(test)) results.push(await runCase(single, file.given ?? {}, subject))
  return results
}

function singles(test: TestCase): TestCase[] {
  const { call, operation } = test
  if (Array.isArray(call)) return call.map((one) => ({ ...test, call: one, name: `${test.name}: ${told(one)}` }))
  if (operation === undefined || operation.length === 1) return [test]
  return operation.map((one) => ({ ...test, operation: [one], name: `${test.name}: ${one}` }))
}

function told(call: string | WrittenCall): string {
  return typeof call === 'string' ? call : `${call.method} ${call.url}`
}

async function runCase(test: TestCase, given: Written, subject: Subject): Promise<CaseResult> {
  const begin = performance.now()
  const since = () => Math.round((performance.now() - begin) * 10) / 10
  try {
    const decision = await decide(test, given, subject)
    return { name: test.name, faults: compare(test, decision), policyIds: decision.policyIds, ms: since() }
  } catch (cause) {
    const fault = cause instanceof Error ? cause.message : String(cause)
    return { name: test.name, faults: [fault], policyIds: [], ms: since() }
  }
}

function decide(test: TestCase, given: Written, { bundle, catalogue }: Subject): Decision | Promise<Decision> {
  const kind: Kind = test.mint ? 'mint' : test.delegate ? 'delegate' : 'call'
  const facts = new Map([...factsOf(kind, onlyKnown(kind, given)), ...factsOf(kind, test)])
  const policy = createPolicy({ bundle, tenant: 'default', engine: supposingEngine(bundle, facts) })
  const scope = test.mint ?? test.delegate
  if (kind !== 'call' && scope !== undefined)
    return policy.evaluateInstruction(issuingOf(kind, scope, facts, test.max_depth))
  return policy.evaluate(askOf(test, catalogue, facts))
}

/** What is given for all cases may be about calls only, or about grants only. */
function onlyKnown(kind: Kind, given: Written): Written {
  const others = (['call', 'mint', 'delegate'] as const).filter((other) => other !== kind).flatMap(attributesOf)
  const known = new Set(attributesOf(kind))
  const kept = (variable: string, members: Readonly<Record<string, unknown>> = {}) =>
    Object.fromEntries(
      Object.entries(members).filter(([member]) => {
        const names = [`${variable}.${member}`, `${variable} ${member}`]
        return names.some((name) => known.has(name)) || !names.some((name) => others.includes(name))
      }),
    )
  return {
    principal: kept('principal', given.principal),
    resource: kept('resource', given.resource),
    context: kept('context', given.context),
  }
}

function askOf({ call, operation: [name] = [] }: TestCase, catalogue: Catalogue, facts: ReadonlyMap<string, Value>) {
  if (name !== undefined) {
    const { endpoint, method } = exampleOf(...operationNamed(catalogue, name))
    return callAsk(endpoint, facts, { method })
  }
  const written = typeof call === 'string' ? parseCall(call) : (call as WrittenCall)
  const endpoint = catalogue.locate(destinationOf(written))
  return callAsk(endpoint, facts, written)
}

/** @throws {Error} when no service has it. */
export function operationNamed(catalogue: Catalogue, name: string) {
  const service = catalogue.service(name.slice(0, Math.max(0, name.indexOf(':'))))
  const operation = service && namedOperations(service).find((one) => one.name === name)
  if (service === undefined || operation === undefined) {
    const services = catalogue.services.map((one) => one.name).join(', ')
    throw new Error(`there is no operation ${name} in the services of this test: ${services}`)
  }
  return [service, operation] as const
}

function compare(test: TestCase, decision: Decision): string[] {
  const { effect, errors, code } = decision
  // A policy that errs denies, which is not what anybody means by expecting a no.
  if (errors.length > 0) return errors.map((error) => `a policy could not be evaluated: ${error}`)
  const got = effect === 'allow' && decision.obligations.approval !== undefined ? 'approval' : effect
  const by = decision.policyIds.length === 0 ? 'no policy' : decision.policyIds.join(', ')
  const faults: string[] = []
  if (got !== test.expect) faults.push(`expected ${test.expect}, got ${got}, decided by ${by}`)
  if (test.code !== undefined && test.code !== code)
    faults.push(`expected the code ${test.code}, got ${code ?? 'none'}`)
  if (test.decided_by !== undefined && !areThese(test.decided_by, decision.policyIds))
    faults.push(`expected to be decided by ${test.decided_by.join(', ') || 'no policy'}, got ${by}`)
  return [...faults, ...obligationFaults(test.obligations ?? {}, decision)]
}

function areThese(wanted: readonly string[], ids: readonly string[]): boolean {
  const isOf = (want: string, id: string) => id === want || id.endsWith(`#${want}`) || id.endsWith(`/${want}`)
  const missing = wanted.some((want) => !ids.some((id) => isOf(want, id)))
  return !missing && ids.every((id) => wanted.some((want) => isOf(want, id)))
}

function obligationFaults(wanted: Readonly<Record<string, unknown>>, { obligations }: Decision): string[] {
  const spelled = snake(obligations) as Record<string, unknown>
  return Object.entries(wanted).flatMap(([name, want]) => {
    const got = spelled[name] ?? null
    if (covers(got, want)) return []
    return [`expected the obligation ${name}: ${JSON.stringify(want)}, got ${JSON.stringify(got)}`]
  })
}

/** Members that the expectation does not name are not looked at. */
function covers(got: unknown, want: unknown): boolean {
  if (typeof want !== 'object' || want === null) return got === want
  if (typeof got !== 'object' || got === null) return false
  if (Array.isArray(want))
    return Array.isArray(got) && JSON.stringify([...want].sort()) === JSON.stringify([...got].sort())
  return Object.entries(want).every(([key, value]) => covers((got as Record<string, unknown>)[key] ?? null, value))
}

/** Obligations are spelled as everything in files is: `reuse_s`. */
function snake(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(snake)
  const spell = (key: string) => key.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [spell(key), snake(inner)]))
}
