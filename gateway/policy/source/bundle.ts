/**
 * A policy bundle: every policy read, validated strictly against the catalogue's schema, cut into slices and preparsed. A
 * bundle either loads without a single error or warning, or does not load.
 */

import { hash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { type ValidationError, validate } from '@cedar-policy/cedar-wasm/nodejs'
import canonicalize from 'canonicalize'
import { patternCovers } from '../../protocol/authority.ts'
import type { Operation, Service } from '../../protocol/service.ts'
import type { GrantAction } from '../attributes/attributes.ts'
import { NEEDS_NOTHING, needsOf } from '../attributes/needs.ts'
import { isRead } from '../attributes/reads.ts'
import type { Catalogue } from '../catalogue/catalogue.ts'
import { UNMANAGED } from '../catalogue/site.ts'
import { type Fault, throwFaults } from '../fault.ts'
import { narrowing } from '../narrow.ts'
import { type Parsed, parseSchema, parseSet } from '../preparsed.ts'
import { entitiesIn } from '../scope.ts'
import { appliesTo, askedOf, namesServices, readingsOfAll, type Slice, type Subject } from '../slice.ts'
import { groupsOf, namedOperations, schemaText } from '../vocabulary.ts'
import { findSources, lineAt, type Policy, readPolicies, type SourceFile } from './policy-file.ts'

/** Dispose of it when nothing decides by it any more: from then on it denies everything. */
export interface Bundle extends Disposable {
  /** `sha256:…` over policies, schema and service descriptions in canonical form; comments and layout do not count. */
  readonly digest: string
  readonly policies: readonly Policy[]
  /** The policies that can decide on an operation; an operation that the catalogue does not have gets none. */
  sliceFor(operation: Operation): Slice
  /** Some policy looks at earlier calls of a task: those of tasks that are opened from now on are counted. */
  readonly countsPast: boolean
  /** Names of the operations under these patterns that do more than read. */
  changing(patterns: readonly string[]): readonly string[]
  /** The policies that can decide on making a grant for a service. */
  grantSliceFor(action: GrantAction, service: string): Slice
}

export interface BundleSource {
  /** Cedar files, and directories of them; or what they hold. */
  readonly paths: readonly (string | SourceFile)[]
  readonly catalogue: Catalogue
}

const SCHEMA_FILE = new URL('../../../policies/schema.cedarschema', import.meta.url)

/** Policies without a fault. Plain values: they may come from another thread. */
export interface Reviewed {
  readonly policies: readonly Policy[]
  /** Text of the schema, without the actions of the services. */
  readonly base: string
}

/** @throws {PolicyFaults} listing every problem: place, got, allowed, fix. */
export async function loadBundle(source: BundleSource): Promise<Bundle> {
  return assemble(await review(source), source.catalogue)
}

/** @throws {PolicyFaults} */
export async function review(source: BundleSource): Promise<Reviewed> {
  const faults: Fault[] = []
  const base = await readFile(SCHEMA_FILE, 'utf8')
  const policies = readPolicies(await sourcesOf(source.paths, faults), faults)
  const { shipped } = source.catalogue
  const texts = policies.map(({ text }) => text).join('\n')
  const spoken = await source.catalogue.spokenOf(texts, faults)
  faults.push(
    ...schemaFaults(policies, base, spoken),
    ...policies.flatMap((policy) => foreignNames(policy, spoken, shipped)),
  )
  throwFaults(faults)
  return { policies, base }
}

/** What is in the files and directories, and what was given as it is. */
export async function sourcesOf(paths: BundleSource['paths'], faults: Fault[]): Promise<SourceFile[]> {
  const given = paths.filter((path) => typeof path !== 'string')
  const named = paths.filter((path) => typeof path === 'string')
  return [...(await findSources(named, faults)), ...given]
}

/** Validation time grows with every action of the schema, so each policy meets those of the services that it speaks of. */
function schemaFaults(policies: readonly Policy[], base: string, general: readonly Service[]): Fault[] {
  const groups = new Map<string, { services: readonly Service[]; members: Policy[] }>()
  for (const policy of policies) {
    const own = namesServices(policy) ? mentioned(policy.text, general) : []
    const services = own.length > 0 ? own : general // of none that exists: Cedar says which name comes closest
    const key = services.map((service) => service.name).join()
    const group = groups.get(key) ?? { services, members: [] }
    groups.set(key, group)
    group.members.push(policy)
  }
  return [...groups.values()].flatMap(({ services, members }) => groupFaults(members, schemaText(base, services)))
}

function mentioned(text: string, vocabulary: readonly Service[]): Service[] {
  return vocabulary.filter((service) => text.includes(`"${service.name}:`))
}

function groupFaults(policies: readonly Policy[], schema: string): Fault[] {
  // By number: two policies under one id are both validated.
  const staticPolicies = Object.fromEntries(policies.map((policy, n) => [String(n), policy.text]))
  const answer = validate({ schema, validationSettings: { mode: 'strict' }, policies: { staticPolicies } })
  if (answer.type === 'failure') {
    return answer.errors.map((error) => ({
      where: 'policies',
      got: error.message,
      allowed: error.help ?? 'policies that fit the schema',
      fix: 'correct the policy',
    }))
  }
  const faulty = new Set(answer.validationErrors.map((error) => error.policyId))
  // A policy that is wrong is also reported as impossible; one report of it is enough.
  const warnings = answer.validationWarnings.filter((warning) => !faulty.has(warning.policyId))
  return [...answer.validationErrors, ...warnings].map((error) =>
    validationFault(error, policies[Number(error.policyId)]),
  )
}

function validationFault({ policyId, error }: ValidationError, policy: Policy | undefined): Fault {
  const offset = error.sourceLocations?.[0]?.start ?? 0
  const where = policy === undefined ? policyId : `${policy.file}:${policy.line + lineAt(policy.text, offset) - 1}`
  const got = error.message.replace(/^for policy `[^`]*`, /, '')
  return {
    where,
    got,
    allowed: 'what policies/schema.cedarschema and the service files declare',
    fix: error.help ?? 'correct the policy, or remove it',
  }
}

/** Cedar can't know which services exist: a misspelt `Service::"githbu"` would be a policy that never applies. */
function foreignNames(policy: Policy, spoken: readonly Service[], shipped: readonly string[]): Fault[] {
  const known: Record<string, ReadonlySet<string>> = {
    Service: new Set([...spoken.map((service) => service.name), ...shipped]),
    Endpoint: new Set(spoken.flatMap((service) => namedOperations(service).map((operation) => operation.name))),
  }
  return entitiesIn(policy.json)
    .filter(({ type, id }) => known[type] !== undefined && !known[type].has(id))
    .map(({ type, id }) => ({
      where: `${policy.file}:${policy.line}`,
      got: `${type}::"${id}"`,
      allowed:
        type === 'Service'
          ? [...(known.Service ?? [])].join(', ')
          : 'an operation of a service file, such as Endpoint::"github:issues.read"',
      fix: 'correct the name, or add the service file under `services`',
    }))
}

/** @param reviewed against this very catalogue. */
export function assemble({ policies, base }: Reviewed, catalogue: Catalogue): Bundle {
  const contents = {
    schema: base,
    services: catalogue.digest,
    policies: Object.fromEntries(policies.map((policy) => [policy.id, policy.json])),
  }
  const digest = `sha256:${hash('sha256', canonicalize(contents) ?? '')}`
  using opening = new DisposableStack()
  let holds: DisposableStack = opening
  const slices = new Map<string, Slice>()
  const grantSlices = { mint: new Map<string, Slice>(), delegate: new Map<string, Slice>() }
  /** ids of the policies in it → the preparsed set */
  const preparsed = new Map<string, Parsed>()
  const made: { preparsed: string | undefined }[] = []
  const changes: string[] = []
  for (const service of [...catalogue.services, UNMANAGED]) {
    const text = lazily(() => schemaText(base, [service]))
    const schema = lazily(() => holds.use(parseSchema(text())).id)
    const narrow = lazily(() => narrowing(text()))
    const sliceOf = (subject: Subject, operation?: Operation): Slice => {
      const members = policies.filter((policy) => appliesTo(policy, subject))
      const readings = readingsOfAll(members)
      const asked = askedOf(members, operation)
      const slice = {
        preparsed: preparse(asked.policies, preparsed, opening),
        schema,
        narrowSchema: lazily(() => {
          const narrowed = narrow()(subject.action, (name) => isRead(name, asked.readings))
          return holds.use(parseSchema(narrowed)).id
        }),
        policies: new Map(members.map((policy) => [policy.id, policy])),
        readings,
        asked,
        ...(operation === undefined ? NEEDS_NOTHING : needsOf(operation, members, readings)),
      }
      made.push(slice)
      return slice
    }
    for (const operation of namedOperations(service)) {
      if (operation.access !== 'read') changes.push(operation.name)
      slices.set(
        operation.name,
        sliceOf(
          { kind: 'Endpoint', action: operation.name, groups: groupsOf(operation), service: service.name },
          operation,
        ),
      )
    }
    for (const action of ['mint', 'delegate'] as const)
      grantSlices[action].set(service.name, sliceOf({ kind: 'Service', action, groups: [], service: service.name }))
  }
  holds = opening.move()
  return {
    digest,
    policies,
    countsPast: [...slices.values()].some(({ needs }) => needs.past),
    changing: (patterns) => changes.filter((name) => patterns.some((pattern) => patternCovers(pattern, name))),
    sliceFor: (operation) => slices.get(operation.name) ?? NOTHING,
    grantSliceFor: (action, service) => grantSlices[action].get(service) ?? NOTHING,
    [Symbol.dispose]() {
      for (const slice of made) slice.preparsed = undefined // its id will stand for another set
      holds.dispose()
    },
  }
}

const NOTHING: Slice = {
  preparsed: undefined,
  schema: () => '',
  narrowSchema: () => '',
  policies: new Map(),
  readings: new Set(),
  asked: { policies: [], readings: new Set(), isPlaced: true },
  ...NEEDS_NOTHING,
}

/** Worked out when it is first asked for: of a large catalogue few operations are called. */
function lazily<T extends {}>(work: () => T): () => T {
  let done: T | undefined
  return () => (done ??= work())
}

function preparse(
  members: readonly Policy[],
  known: Map<string, Parsed>,
  opening: DisposableStack,
): string | undefined {
  if (members.length === 0) return undefined
  const key = JSON.stringify(members.map((policy) => policy.id))
  const kept = known.get(key)
  if (kept !== undefined) return kept.id
  const parsed = opening.use(parseSet(Object.fromEntries(members.map((policy) => [policy.id, policy.text]))))
  known.set(key, parsed)
  return parsed.id
}
