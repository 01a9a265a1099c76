/**
 * The session policy of a grant: what its operations need in IAM, at the places that the grant names, and nothing else. An operation
 * whose service file names no IAM action is in no policy, so AWS denies it. IAM's `*` crosses slashes, so a place can come out wider
 * than the grant says, never narrower; the gateway decides on each request besides. Pure.
 */
import { patternCovers } from '../../protocol/authority.ts'
import type { Authority, Grant, ParameterRule } from '../../protocol/grant.ts'
import { parsePathPattern } from '../../protocol/path-pattern.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Operation, Service } from '../../protocol/service.ts'
import type { AwsConfig } from './schema.ts'

/** Characters that STS takes of a policy. */
const MAX_LENGTH = 2048

type Terms = Pick<AwsConfig, 'session_policy' | 'role_arn'>

/** name → IAM patterns that it may stand for */
type Bindings = ReadonlyMap<string, string>

/** @throws {GatewayError} `credential_unconfigured` when nothing can be expressed, or not in so few characters. */
export function sessionPolicy(service: Service, grant: Pick<Grant, 'authority'>, terms: Terms): string {
  const partition = (terms.role_arn ?? '').split(':')[1] ?? 'aws'
  /** resource → actions */
  const allowed = new Map<string, Set<string>>()
  for (const authority of grant.authority) {
    const operations = service.operations.filter((one) => isCovered(authority, one))
    for (const [action, resource] of operations.flatMap((one) =>
      needsOf(one, { authority, hosts: service.hosts }, terms),
    ))
      add(allowed, resource.replace('{partition}', partition), action)
  }
  const text = JSON.stringify({ Version: '2012-10-17', Statement: statements(allowed) })
  if (allowed.size === 0)
    throw unexpressed(
      `no operation of the grant at ${service.name} names the IAM actions it needs. Add \`iam\` to the operations in the service file, or set session_policy: none`,
    )
  if (text.length > MAX_LENGTH)
    throw unexpressed(
      `it takes ${text.length} characters, and AWS takes ${MAX_LENGTH}. Let the grant name fewer operations or places, or set session_policy: ${terms.session_policy === 'grant' ? 'operations' : 'none'}`,
    )
  return text
}

/** What the grant says, and where the service is. */
interface Reach {
  readonly authority: Authority
  readonly hosts: Service['hosts']
}

/** Actions and the resources they are about, one pair for each. */
function needsOf(operation: Operation, reach: Reach, { session_policy }: Terms): [string, string][] {
  return (operation.iam ?? []).flatMap((need) => {
    const [action = '', template = '*'] = need.split(' ')
    const places = session_policy === 'grant' ? placesOf(template, operation, reach) : ['*']
    return places.map((place): [string, string] => [action, place])
  })
}

function isCovered(authority: Authority, operation: Operation): boolean {
  return authority.operations.some((pattern) => patternCovers(pattern, operation.name))
}

function add(allowed: Map<string, Set<string>>, resource: string, action: string): void {
  const actions = allowed.get(resource) ?? new Set()
  allowed.set(resource, actions.add(action))
}

/** Resources with the same actions share a statement: that is shortest. */
function statements(allowed: ReadonlyMap<string, ReadonlySet<string>>): unknown[] {
  const byActions = new Map<string, string[]>()
  for (const [resource, actions] of [...allowed].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const key = [...actions].sort().join(' ')
    byActions.set(key, [...(byActions.get(key) ?? []), resource])
  }
  return [...byActions].map(([actions, resources]) => ({
    Effect: 'Allow',
    Action: actions.split(' '),
    Resource: resources,
  }))
}

/** @param template `arn:{partition}:s3:::{bucket}/{key}`, with names of the operation's patterns, `query.NAME` or `body./POINTER`. */
function placesOf(template: string, operation: Operation, reach: Reach): readonly string[] {
  const found = new Set<string>()
  for (const bindings of bindingsOf(operation, reach)) {
    for (const place of filled(template, bindings, reach.authority.constraints?.params ?? {})) found.add(place)
  }
  return [...found].filter((place) => ![...found].some((other) => other !== place && includes(other, place)))
}

/** Whether a pattern whose only wildcard is at its end matches all that another one does. */
function includes(outer: string, inner: string): boolean {
  return outer.indexOf('*') === outer.length - 1 && inner.startsWith(outer.slice(0, -1))
}

/** Every way in which a pattern of the operation meets a place of the grant. Without places: one way, in which nothing is bound. */
function bindingsOf(operation: Operation, { authority: { paths, locations }, hosts }: Reach): readonly Bindings[] {
  const patterns = (operation.match ?? [])
    .map((text) => /^\S+ ([^/\s]*)(\/[^\s?]*)/.exec(text))
    .filter((shape) => shape !== null)
  const ways = patterns.flatMap(([, host = '', path = '']) => {
    const atHosts: Site[] =
      locations === undefined
        ? [{ bound: NONE, path }]
        : locations.flatMap((location) =>
            host === '*'
              ? [siteAt(location, path, hosts)]
              : hostBindings(host, location).map((bound) => ({ bound, path })),
          )
    return atHosts.flatMap((site) => {
      const atPaths = paths === undefined ? [NONE] : paths.flatMap((pattern) => pathBindings(site.path, pattern))
      return atPaths.map((other) => new Map([...site.bound, ...other]))
    })
  })
  return patterns.length === 0 ? [NONE] : ways
}

interface Site {
  readonly bound: Bindings
  /** Of the operation, as it is there. */
  readonly path: string
}

/** `/{bucket}/{key}` is `/{key}` at a host that holds the bucket (`policy/catalogue/site.ts`). */
function siteAt(location: string, path: string, hosts: Service['hosts']): Site {
  const [, leading = ''] = /^\/\{([a-z0-9_]+)\}(?=\/|$)/.exec(path) ?? []
  const bound = hosts
    .filter((host) => host.includes('{'))
    .flatMap((host) => hostBindings(host, location))
    .find((bindings) => bindings.has(leading))
  return bound === undefined ? { bound: NONE, path } : { bound, path: path.slice(leading.length + 3) || '/' }
}

const NONE: Bindings = new Map()

/** `{bucket}.s3.{region}.amazonaws.com` at `https://reports.s3.eu-west-1.amazonaws.com`. Not a pattern: nothing is bound. */
function hostBindings(host: string, location: string): Bindings[] {
  if (!host.includes('{')) return [NONE]
  const name = URL.parse(location)?.hostname ?? ''
  const names = [...host.matchAll(/\{([a-z0-9_]+)\+?\}/g)].map(([, label = '']) => label)
  const shape = host
    .replace(/[.]/g, '\\.')
    .replace(/\{[a-z0-9_]+\+\}/, '([a-z0-9.-]+)')
    .replace(/\{[a-z0-9_]+\}/g, '([a-z0-9-]+)')
  const values = new RegExp(`^${shape}$`).exec(name)?.slice(1)
  return values === undefined ? [] : [new Map(names.map((label, i) => [label, values[i] ?? '*']))]
}

/** `/{bucket}/{key**+}` under `/reports/2026/**`. */
function pathBindings(template: string, text: string): Bindings[] {
  const pattern = parsePathPattern(text)
  if (pattern === undefined) return []
  const parts = template === '/' ? [] : template.slice(1).split('/')
  const wanted = pattern.segments.map((segment) => (segment === '*' ? '*' : literal(segment)))
  const tail = pattern.hasTail ? ['*'] : []
  const bound = new Map<string, string>()
  for (const [i, part] of parts.entries()) {
    const [, name, rest] = /^\{([a-z0-9_]+)(\*\*)?\+?\}/.exec(part) ?? []
    const here = rest === undefined ? (wanted[i] ?? tail[0]) : [...wanted.slice(i), ...tail].join('/')
    if (!isMet(here, name, part)) return []
    if (name !== undefined) bound.set(name, here)
    if (rest !== undefined) return [bound]
  }
  return wanted.length > parts.length ? [] : [bound]
}

/** Whether a segment of the grant can be this one of the operation. */
function isMet(here: string | undefined, name: string | undefined, part: string): here is string {
  if (here === undefined || here === '') return false
  return name !== undefined || here === '*' || here === literal(part)
}

/** IAM user guide, "Policy variables": `${*}`, `${?}` and `${$}` stand for the characters themselves. */
function literal(text: string): string {
  return text.replace(/[*?$]/g, (character) => `\${${character}}`)
}

function filled(
  template: string,
  bindings: Bindings,
  params: Readonly<Record<string, ParameterRule>>,
): readonly string[] {
  const last = template.lastIndexOf('}') + 1
  let end = 0
  let texts: readonly string[] = ['']
  // From left to right: what was filled in is not looked at again, whatever braces a grant has.
  for (const { 0: whole, 1: name = '', index } of template.matchAll(/\{([^{}]+)\}/g)) {
    const before = template.slice(end, index)
    end = index + whole.length
    const values =
      name === 'partition' ? [whole] : name.includes('.') ? valuesOf(params[name]) : [bindings.get(name) ?? '*']
    // A client may name a resource by its ARN instead of its name.
    texts = texts.flatMap((text) =>
      values.map((value) => (value.startsWith('arn:') ? value : `${text}${before}${value}`)),
    )
  }
  return texts.map((text) => `${text}${template.slice(last)}`)
}

function valuesOf(rule: ParameterRule | undefined): readonly string[] {
  if (rule?.equals !== undefined) return [literal(String(rule.equals))]
  if (rule?.one_of !== undefined) return rule.one_of.map((value) => literal(String(value)))
  if (rule?.prefix !== undefined) return [`${literal(rule.prefix)}*`]
  return rule?.glob === undefined ? ['*'] : [rule.glob.split('*').map(literal).join('*')]
}

function unexpressed(why: string): GatewayError {
  return new GatewayError('credential_unconfigured', `The session policy of this grant cannot be written: ${why}.`)
}
