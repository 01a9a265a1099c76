/**
 * Hosts as service files write them: exact names, and patterns with labels in braces, `{bucket}.s3.{region}.amazonaws.com`.
 * Whoever holds a name below the fixed end of a pattern is trusted with what the service is trusted with. Pure.
 */
import { parseAuthority } from './target.ts'

type Label =
  | { readonly kind: 'literal'; readonly text: string }
  /** `{name}`, with fixed text around it: `{location}-aiplatform`. */
  | { readonly kind: 'one'; readonly name: string; readonly prefix: string; readonly suffix: string }
  /** `{name+}`: one label or more, leftmost only. */
  | { readonly kind: 'many'; readonly name: string }

export interface HostPattern {
  readonly text: string
  /** From left to right; the last two are literal. */
  readonly labels: readonly Label[]
}

export const HOST_PATTERN_FORM =
  'labels with {name} for one, {name+} for one or more in front, and two fixed labels at least at the end'

const LABEL = /^([a-z0-9-]*)\{([a-z][a-z0-9_]*)(\+)?\}([a-z0-9-]*)$/
const VALUE = /^[a-z0-9-]+$/
/** What clouds call a region: `eu-west-1`, `us-gov-east-1`, `europe-west4`. Without it `{region}` would also take the `s3` of `x.s3.amazonaws.com`. */
const REGION = /^[a-z]+(?:-[a-z]+)+-?[0-9]+$/

export function isHostPattern(host: string): boolean {
  return host.includes('{')
}

/** @returns the parsed pattern, or undefined where the text is none of `HOST_PATTERN_FORM`. */
export function parseHostPattern(text: string): HostPattern | undefined {
  const labels = text.split('.').map(parseLabel)
  const names = labels.flatMap((label) => (label && label.kind !== 'literal' ? [label.name] : []))
  const isWhole = labels.every((label, i) => label !== undefined && (label.kind !== 'many' || i === 0))
  const isAnchored = labels.length > 2 && labels.slice(-2).every((label) => label?.kind === 'literal')
  const isHost = isExactHost(text.replace(/\{[^}]*\}/g, 'x'))
  if (!isWhole || !isAnchored || !isHost || names.length === 0 || new Set(names).size !== names.length) return undefined
  return { text, labels: labels as readonly Label[] }
}

function parseLabel(text: string): Label | undefined {
  if (!text.includes('{')) return { kind: 'literal', text }
  const [, prefix = '', name = '', plus, suffix = ''] = LABEL.exec(text) ?? []
  if (name === '') return undefined
  if (plus === undefined) return { kind: 'one', name, prefix, suffix }
  return prefix === '' && suffix === '' ? { kind: 'many', name } : undefined
}

/** Whether the text is a host name or IP address (no brackets) as requests carry it once parsed. */
export function isExactHost(text: string): boolean {
  try {
    return parseAuthority(text.includes(':') ? `[${text}]` : text, 443).host === text
  } catch {
    return false
  }
}

/** The fixed end of a pattern, below which everything it matches is; an exact host is its own. */
export function fixedEnd(host: string): string {
  if (!isHostPattern(host)) return host
  const rest = host.slice(host.lastIndexOf('}'))
  return rest.slice(rest.indexOf('.') + 1)
}

/** Names of the labels in braces. */
export function labelNames(host: string): string[] {
  return [...host.matchAll(/\{([a-z0-9_]+)\+?\}/g)].map(([, name = '']) => name)
}

/** Whether a host can match both. Errs on the side of yes. */
export function overlap(a: HostPattern, b: HostPattern): boolean {
  for (let back = 1; ; back++) {
    const [mine, theirs] = [a.labels.at(-back), b.labels.at(-back)]
    if (mine === undefined || theirs === undefined) return mine === theirs
    if (mine.kind === 'many' || theirs.kind === 'many') return true
    if (!meet(mine, theirs)) return false
  }
}

type Single = Exclude<Label, { kind: 'many' }>

function meet(a: Single, b: Single): boolean {
  if (a.kind === 'literal') return b.kind === 'literal' ? a.text === b.text : captured(b, a.text) !== undefined
  if (b.kind === 'literal') return captured(a, b.text) !== undefined
  const agree = (one: string, other: string, fits: 'startsWith' | 'endsWith') => one[fits](other) || other[fits](one)
  return agree(a.prefix, b.prefix, 'startsWith') && agree(a.suffix, b.suffix, 'endsWith')
}

function captured({ name, prefix, suffix }: Extract<Label, { kind: 'one' }>, label: string): string | undefined {
  if (!label.startsWith(prefix) || !label.endsWith(suffix)) return undefined
  const value = label.slice(prefix.length, label.length - suffix.length)
  return (name === 'region' ? REGION : VALUE).test(value) ? value : undefined
}

interface Step<T> {
  readonly literals: Map<string, Step<T>>
  readonly ones: { readonly label: Extract<Label, { kind: 'one' }>; readonly next: Step<T> }[]
  /** A pattern that ends here, or takes all that is left. */
  readonly leaves: { here?: T; many?: { readonly name: string; readonly value: T } }
}

export interface HostMatch<T> {
  readonly value: T
  /** name in braces → what stands there */
  readonly params: Readonly<Record<string, string>>
}

/** Patterns that do not overlap, found label by label from the right: the cost follows the length of a name, not their number. */
export class HostTable<T> {
  readonly #root: Step<T> = emptyStep()

  add(pattern: HostPattern, value: T): void {
    let step = this.#root
    for (const label of pattern.labels.toReversed()) {
      if (label.kind === 'many') {
        step.leaves.many = { name: label.name, value }
        return
      }
      step = nextStep(step, label)
    }
    step.leaves.here = value
  }

  /** @param host canonical: lower case, no trailing dot. Anything else matches nothing. */
  match(host: string): HostMatch<T> | undefined {
    return descend(this.#root, host, host.length, NO_PARAMS)
  }
}

/** @param end of what is left of the host; the label before it is next, and nothing is left at -1. */
function descend<T>(
  step: Step<T>,
  host: string,
  end: number,
  params: HostMatch<T>['params'],
): HostMatch<T> | undefined {
  if (end < 0) return step.leaves.here === undefined ? undefined : { value: step.leaves.here, params }
  const dot = host.lastIndexOf('.', end - 1)
  const label = host.slice(dot + 1, end)
  const literal = step.literals.get(label)
  const found = literal && descend(literal, host, dot, params)
  if (found !== undefined) return found
  for (const one of step.ones) {
    const value = captured(one.label, label)
    const deeper = value !== undefined && descend(one.next, host, dot, { ...params, [one.label.name]: value })
    if (deeper) return deeper
  }
  const { many } = step.leaves
  const rest = host.slice(0, end)
  if (many === undefined || !rest.split('.').every((part) => VALUE.test(part))) return undefined
  return { value: many.value, params: { ...params, [many.name]: rest } }
}

const NO_PARAMS: Readonly<Record<string, string>> = Object.freeze({})

function nextStep<T>(step: Step<T>, label: Single): Step<T> {
  if (label.kind === 'literal') {
    const known = step.literals.get(label.text) ?? emptyStep<T>()
    step.literals.set(label.text, known)
    return known
  }
  const next = emptyStep<T>()
  step.ones.push({ label, next })
  return next
}

function emptyStep<T>(): Step<T> {
  return { literals: new Map(), ones: [], leaves: {} }
}
