/** Runs `*.test.yaml`: asks each case of the policies as a gateway would, and compares the answer with what is expected. */
import type { Decision } from '../../protocol/decision.ts'
import {
  answer,
  parseCall,
  type Scene,
  type Subject,
  sceneOfCall,
  sceneOfOperation,
  type WrittenCall,
} from './scene.ts'
import { attributesOf, factsOf, type Kind, type Written } from './supposed.ts'
import type { TestCase, TestFile } from './testing-file.ts'

export interface CaseResult {
  readonly name: string
  /** What was not as expected; empty: all is. */
  readonly faults: readonly string[]
  /** Policies that decided. */
  readonly policyIds: readonly string[]
  readonly ms: number
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

async function decide(test: TestCase, given: Written, subject: Subject): Promise<Decision> {
  const scene = sceneOf(test, subject)
  const facts = new Map([...factsOf(scene.kind, onlyKnown(scene.kind, given)), ...factsOf(scene.kind, test)])
  return (await answer(subject, scene, facts)).decision
}

function sceneOf(
  { call, operation: [name] = [], mint, delegate, max_depth: maxDepth }: TestCase,
  subject: Subject,
): Scene {
  if (mint !== undefined) return { kind: 'mint', scope: mint, maxDepth }
  if (delegate !== undefined) return { kind: 'delegate', scope: delegate }
  if (name !== undefined) return sceneOfOperation(subject, name)
  return sceneOfCall(subject, typeof call === 'string' ? parseCall(call) : (call as WrittenCall))
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
