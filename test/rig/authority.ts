/**
 * Authorities, children of authorities and requests near their boundaries, drawn for properties. The vocabulary is small, so
 * that much of what is drawn overlaps; children lose by preference, and requests are derived from the grants.
 */
import { parseCidr } from '../../gateway/protocol/cidr.ts'
import type { Authority, Constraints, Grant, ParameterRule } from '../../gateway/protocol/grant.ts'
import { parseParameter } from '../../gateway/protocol/parameter.ts'
import { satisfies } from '../../gateway/protocol/parameter-rule.ts'
import type { Facts } from '../../gateway/protocol/reach.ts'
import type { Endpoint } from '../../gateway/protocol/service.ts'

/** One of the values. */
export type Draw = <T>(...from: readonly T[]) => T

/**
 * Choices that follow from one seed (mulberry32): a property draws a hundred of them for a case, and each from its own
 * arbitrary would cost more than what is tested. The seed that fast-check reports repeats the case.
 */
export function drawer(seed: number): Draw {
  let state = seed
  return <T>(...from: readonly T[]) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return from[((mixed ^ (mixed >>> 14)) >>> 0) % from.length] as T
  }
}

type Full = { [K in keyof Constraints]-?: Constraints[K] }

const OPERATIONS = ['s:a.read', 's:a.write', 's:b.read', 's:a.*', 's:*'] as const
const METHODS = ['GET', 'POST', 'PUT'] as const
const ORIGINS = ['https://a.test', 'http://a.test', 'https://a.test:8443'] as const
const PATHS = ['/', '/a', '/a/b', '/a/*', '/*/b', '/*', '/a/**', '/a/*/**', '/*/b/**', '/**'] as const
const RANGES = [
  '10.1.2.0/24',
  '10.1.0.0/16',
  '10.0.0.0/8',
  '0.0.0.0/0',
  '2001:db8::/48',
  '2001:db8::/32',
  '::/0',
] as const
const REGIONS = ['CH', 'DE', 'US'] as const
const SENSITIVITIES = ['public', 'internal', 'confidential', 'restricted'] as const
const TEXT_VALUES = ['a', 'ab', 'a/b', 'ab/b', 'b', '1', '3', '5', '*', ''] as const
const NUMBERS = [0, 1, 3, 5] as const
const PARAMETERS = ['query.q', 'body./v', 'body./list'] as const

/** Tightest first: what stands before another is by preference a child's. */
const POOLS: { readonly [K in keyof Omit<Full, 'params'>]: readonly Full[K][] } = {
  max_calls: [1, 2, 3],
  max_bytes: [10, 20, 30],
  rate: [
    { n: 1, per: 60 },
    { n: 2, per: 60 },
    { n: 3, per: 60 },
    { n: 1, per: 1 },
  ],
  single_use: [true, false],
  not_before: [102, 101, 100],
  not_after: [104, 105, 106],
  source: [
    ['10.0.0.0/16'],
    ['10.1.2.0/24'],
    ['10.1.0.0/16'],
    ['10.1.2.0/24', '2001:db8::/48'],
    ['10.0.0.0/8', '::/0'],
    ['0.0.0.0/0', '::/0'],
  ],
  geo: [['CH'], ['CH', 'DE'], ['CH', 'DE', 'US'], ['US']],
  sensitivity_max: SENSITIVITIES,
  approval: ['notify', 'none', 'single', 'quorum'],
}
const NAMES = Object.keys(POOLS) as (keyof typeof POOLS)[]

export function drawAuthority(draw: Draw): Authority[] {
  return Array.from({ length: draw(1, 1, 2, 3) }, () => drawEntry(draw))
}

function drawEntry(draw: Draw): Authority {
  const constraints = drawConstraints(draw)
  return {
    operations: some(draw, OPERATIONS),
    ...(draw(true, false, false) && { actions: some(draw, METHODS) }),
    ...(draw(true, false, false) && { locations: some(draw, ORIGINS) }),
    ...(draw(true, true, false) && { paths: some(draw, PATHS) }),
    ...(Object.keys(constraints).length > 0 && { constraints }),
  }
}

/** One or two, each once. */
function some<T>(draw: Draw, from: readonly T[]): T[] {
  return [...new Set(draw(1, 2) === 1 ? [draw(...from)] : [draw(...from), draw(...from)])]
}

function drawConstraints(draw: Draw): Constraints {
  const drawn = NAMES.filter(() => draw(0, 0, 0, 0, 1) === 1)
  const params = draw(some(draw, PARAMETERS), undefined)?.map((key) => [key, drawRule(draw, key)])
  return {
    ...Object.fromEntries(drawn.map((name) => [name, draw<unknown>(...POOLS[name])])),
    ...(params && { params: Object.fromEntries(params) }),
  }
}

function drawRule(draw: Draw, key: string): ParameterRule {
  if (key === 'body./list') return { within: some(draw, ['a', 'b', 1]) }
  const rules: readonly ParameterRule[] = [
    { equals: draw<string | number | null | boolean>('a', 'ab', 3, '3', true, null) },
    { one_of: some<string | number>(draw, [...TEXT_VALUES, 3]) },
    { prefix: draw('a', 'ab', 'a/') },
    { glob: draw('a*', 'a*b', '*', 'a/*', '*/b', 'ab') },
    { max: draw(...NUMBERS) },
    { min: draw(...NUMBERS) },
    { min: draw(0, 1), max: draw(3, 5) },
    { prefix: 'a', glob: draw('a*', 'a*b', '*b') },
  ]
  return draw(...rules)
}

/** By preference something narrower than the parent: entries left out, lists cut, bounds tightened, constraints added. */
export function drawChild(draw: Draw, parent: readonly Authority[]): Authority[] {
  if (isSlip(draw)) return parent.toReversed()
  return Array.from({ length: draw(1, 1, 2) }, () => {
    const wide = draw(...parent)
    return draw(0, 0, 0, 0, 0, 0, 1) === 1 ? drawEntry(draw) : drawChildEntry(draw, wide)
  })
}

function drawChildEntry(draw: Draw, parent: Authority): Authority {
  const paths = cutList(draw, parent.paths, PATHS, lowerPath)
  const actions = cutList(draw, parent.actions, METHODS, (one) => one)
  const locations = cutList(draw, parent.locations, ORIGINS, (one) => one)
  const constraints = cutConstraints(draw, parent.constraints ?? {})
  return {
    operations: cutList(draw, parent.operations, OPERATIONS, lowerOperation) ?? ['s:a.read'],
    ...(actions && { actions }),
    ...(locations && { locations }),
    ...(paths && { paths }),
    ...(Object.keys(constraints).length > 0 && { constraints }),
  }
}

const SLIPS = [true, ...Array<boolean>(23).fill(false)]

/** Rarely something else altogether. */
function isSlip(draw: Draw): boolean {
  return draw(...SLIPS)
}

function cutList(
  draw: Draw,
  parent: readonly string[] | undefined,
  pool: readonly string[],
  lower: (one: string, draw: Draw) => string,
): string[] | undefined {
  if (isSlip(draw)) return draw(some(draw, pool), undefined)
  if (parent === undefined) return draw(undefined, undefined, some(draw, pool))
  const kept = parent.filter(() => draw(true, true, false))
  const list = kept.length === 0 ? [draw(...parent)] : kept
  return [...new Set(list.map((one) => draw(one, lower(one, draw))))]
}

function lowerOperation(pattern: string, draw: Draw): string {
  if (pattern === 's:*') return draw(...OPERATIONS)
  return pattern === 's:a.*' ? draw('s:a.read', 's:a.write') : pattern
}

function lowerPath(pattern: string, draw: Draw): string {
  const lowered = pattern.split('/').map((segment) => {
    if (segment === '**') return draw('x', 'b/**', '*')
    return segment === '*' ? draw('a', '*') : segment
  })
  return lowered.join('/')
}

function cutConstraints(draw: Draw, parent: Constraints): Constraints {
  const child: Record<string, unknown> & Pick<Constraints, 'params'> = { ...drawFew(draw), ...parent }
  for (const name of NAMES) {
    const bound = parent[name]
    if (bound === undefined) continue
    const at = (POOLS[name] as readonly unknown[]).indexOf(bound)
    if (isSlip(draw)) child[name] = draw<unknown>(...POOLS[name])
    else if (at > 0) child[name] = draw<unknown>(bound, bound, POOLS[name][at - 1])
    if (isSlip(draw)) delete child[name]
  }
  const { params, ...others } = child
  const kept = parent.params === undefined ? params : cutParams(draw, parent.params)
  return { ...others, ...(Object.keys(kept ?? {}).length > 0 && { params: kept }) }
}

function drawFew(draw: Draw): Constraints {
  return draw(0, 0, 0, 1) === 1 ? drawConstraints(draw) : {}
}

function cutParams(draw: Draw, parent: Readonly<Record<string, ParameterRule>>): Record<string, ParameterRule> {
  return Object.fromEntries(
    Object.entries(parent).flatMap(([key, rule]): [string, ParameterRule][] => {
      if (isSlip(draw)) return []
      return [[key, isSlip(draw) ? drawRule(draw, key) : cutRule(draw, key, rule)]]
    }),
  )
}

function cutRule(draw: Draw, key: string, rule: ParameterRule): ParameterRule {
  const place = parseParameter(key)?.place ?? 'query'
  const values = key === 'body./list' ? [] : [...TEXT_VALUES, ...NUMBERS].filter((one) => satisfies(rule, one, place))
  const listed = values.length === 0 ? rule : { one_of: some<string | number>(draw, values) }
  const tighter: ParameterRule = {
    ...rule,
    ...(rule.max !== undefined && { max: rule.max - draw(0, 1) }),
    ...(rule.min !== undefined && { min: rule.min + draw(0, 1) }),
    ...(rule.prefix !== undefined && { prefix: rule.prefix + draw('', 'b') }),
    ...(rule.within !== undefined && { within: [draw(...rule.within)] }),
    ...(rule.glob !== undefined && { glob: rule.glob.replace('*', draw('*', 'b', '*b')) }),
  }
  const more = key === 'body./list' ? rule : { ...rule, ...draw({ prefix: 'a' }, { max: 3 }, {}) }
  const cut = draw(rule, tighter, listed, more)
  return (cut.min ?? 0) > (cut.max ?? 9) ? rule : cut
}

/** A request near the boundaries of one of the authorities, by preference inside the last of them. */
export function drawFacts(draw: Draw, authorities: readonly (readonly Authority[])[]): Facts {
  const last = authorities.at(-1) ?? []
  const authority = draw(last, last, last, draw(...authorities))
  const entry = authority.length === 0 ? drawEntry(draw) : draw(...authority)
  const { constraints = {} } = entry
  const origin = new URL(entry.locations === undefined || isSlip(draw) ? draw(...ORIGINS) : draw(...entry.locations))
  const path = drawPath(draw, entry.paths === undefined || isSlip(draw) ? draw(...PATHS) : draw(...entry.paths))
  const query = drawValue(draw, 'query.q', constraints)
  const body = { v: drawValue(draw, 'body./v', constraints), list: drawList(draw, constraints) }
  return {
    endpoint: endpointAt(draw, entry, origin, path),
    method: entry.actions === undefined || isSlip(draw) ? draw(...METHODS) : draw(...entry.actions),
    rawPath: `${path}${draw('?', '?x=1&')}${query === undefined ? '' : `q=${encodeURIComponent(String(query))}`}`,
    sourceAddress: drawAddress(draw, constraints.source ?? [draw(...RANGES)]),
    nowMs: drawNow(draw, constraints),
    ...(isSlip(draw) ? {} : { body }),
    regionsOf: drawRegions(draw, constraints),
  }
}

function endpointAt(draw: Draw, entry: Authority, origin: URL, path: string): Endpoint {
  const pattern = isSlip(draw) ? draw(...OPERATIONS) : draw(...entry.operations)
  const name = lowerOperation(pattern === 's:*' ? draw('s:a.*', 's:b.read') : pattern, draw)
  const most = SENSITIVITIES.indexOf(entry.constraints?.sensitivity_max ?? 'restricted')
  const scheme = origin.protocol === 'http:' ? 'http' : 'https'
  return {
    service: { name: 's' } as Endpoint['service'],
    operation: {
      id: name.slice(2),
      name: name.endsWith('*') ? 's:a.read' : name,
      access: 'read',
      sensitivity: SENSITIVITIES[draw(most, most, 0, 3)] ?? 'public',
      returnsSecret: false,
      irreversible: false,
      websocket: false,
      captures: [],
    },
    scheme,
    host: origin.hostname,
    port: origin.port === '' ? { http: 80, https: 443 }[scheme] : Number(origin.port),
    path,
    rawPath: path,
    params: {},
  }
}

function drawPath(draw: Draw, pattern: string): string {
  const path = pattern.replace('/**', draw('', '/b', '/x', '/b/c', '/')).replaceAll('*', () => draw('a', 'b', 'b', 'x'))
  return path === '' ? '/' : path
}

function drawNow(draw: Draw, { not_before = 102, not_after = 104 }: Constraints): number {
  const inside = draw(not_before * 1000, not_after * 1000 - 1, 103_000)
  return isSlip(draw) ? draw(not_before * 1000 - 1, not_after * 1000) : inside
}

/** First and last address of a range, and the neighbours of both; sometimes as a dual-stack socket shows it. */
function drawAddress(draw: Draw, ranges: readonly string[]): string {
  const cidr = parseCidr(draw(...ranges))
  if (cidr === undefined) return ''
  const bytes = cidr.network.toByteArray()
  const isV6 = bytes.length === 16
  const at = isSlip(draw) ? draw('before', 'after') : draw('first', 'last')
  let value = bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n)
  const size = 1n << BigInt(bytes.length * 8 - cidr.bits)
  if (at === 'last') value += size - 1n
  if (at === 'after') value += size
  if (at === 'before') value -= 1n
  const text = formatAddress(BigInt.asUintN(bytes.length * 8, value), isV6)
  return isV6 ? text : draw(text, `::ffff:${text}`)
}

function formatAddress(value: bigint, isV6: boolean): string {
  const [parts, width, base] = isV6 ? [8, 16n, 16] : [4, 8n, 10]
  return Array.from({ length: parts }, (_, i) =>
    BigInt.asUintN(Number(width), value >> (width * BigInt(parts - 1 - i))),
  )
    .map((part) => part.toString(base))
    .join(isV6 ? ':' : '.')
}

function drawRegions(draw: Draw, { geo = REGIONS }: Constraints): () => readonly string[] {
  const found = isSlip(draw) ? draw([], ['XX']) : [draw(...geo)]
  return () => found
}

/** Bounds of the rule and their neighbours; by preference one that satisfies it. */
function drawValue(draw: Draw, key: string, { params = {} }: Constraints): unknown {
  const place = parseParameter(key)?.place ?? 'query'
  const rule = params[key] ?? {}
  const near: unknown[] = [...TEXT_VALUES, ...NUMBERS]
  for (const bound of Object.values(rule).flat()) {
    near.push(bound)
    if (typeof bound === 'number') near.push(bound - 1, bound + 1)
    if (typeof bound === 'string')
      near.push(`${bound}b`, bound.replaceAll('*', 'x'), bound.replaceAll('*', '/'), bound.slice(1))
  }
  const right = near.filter((one) => satisfies(rule, place === 'query' ? String(one) : one, place))
  return right.length === 0 || isSlip(draw) ? draw(...near, undefined) : draw(...right)
}

function drawList(draw: Draw, { params = {} }: Constraints): unknown {
  const within = params['body./list']?.within ?? ['a']
  return isSlip(draw)
    ? draw<unknown>('a', ['a', 'c'], [['a']], undefined)
    : draw<unknown>([], [draw(...within)], within)
}

/** A grant with nothing but what `reach` looks at. */
export function grantWith(authority: readonly Authority[], ...above: readonly (readonly Authority[])[]): Grant {
  return {
    id: 'grant',
    authority,
    ancestry: above.map((one, n) => ({ id: `above-${n}`, authority: one })),
  } as unknown as Grant
}

/** What has been used up so far, this call included. */
export interface Usage {
  readonly calls: number
  readonly bytes: number
  readonly perSecond: number
  readonly perMinute: number
}

export function drawUsage(draw: Draw): Usage {
  return {
    calls: draw(1, 1, 2, 3, 4),
    bytes: draw(1, 10, 20, 30, 31),
    perSecond: draw(1, 1, 2),
    perMinute: draw(1, 1, 2, 3, 4),
  }
}

/** Whether the budgets of one entry allow as much; counted here in the plainest way. */
export function isAffordable({ max_calls, max_bytes, rate, single_use }: Constraints, usage: Usage): boolean {
  const burst = rate?.per === 1 ? usage.perSecond : usage.perMinute
  return (
    usage.calls <= (max_calls ?? 9) &&
    usage.bytes <= (max_bytes ?? 99) &&
    burst <= (rate?.n ?? 9) &&
    !(single_use && usage.calls > 1)
  )
}
