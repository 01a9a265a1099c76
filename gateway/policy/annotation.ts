/**
 * Annotations of policies: who owns a policy, until when it was reviewed, and what its yes obliges to. Cedar itself never looks at
 * them, so one that is misspelt would look like protection: it is refused when the bundle loads.
 */
import type { ApprovalTerms } from '../protocol/approval.ts'
import { DOWNSCOPES, type Downscope, type Obligations, type Rate } from '../protocol/decision.ts'

export interface Annotated {
  readonly id: string
  readonly owner: string
  /** `2027-01-31`: when its owner looks at it again at the latest. */
  readonly review?: string
  readonly obligations: Obligations
}

/** One annotation that is wrong; the place is known to the caller. */
export interface AnnotationFault {
  readonly got: string
  readonly allowed: string
  readonly fix: string
}

type Annotations = Readonly<Record<string, string | null>>

/** What one annotation says; undefined when it says nothing that is allowed. */
interface Word<T> {
  readonly allowed: string
  /** As it would be right. */
  readonly example: string
  /** On what it is carried out: calls, the making of grants, or both. */
  readonly on: readonly ('call' | 'grant')[]
  read(text: string): T | undefined
}

const CALL = ['call'] as const
const BOTH = ['call', 'grant'] as const

const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$/
const NAME = /^[a-z][a-z0-9_-]{0,39}$/
/** RFC 9110 §5.6.2, lower case. */
const FIELD = /^[!#$%&'*+.^_`|~0-9a-z-]{1,64}$/
const POINTER = /^(?:\/(?:[^~/]|~[01])*)+$/
const MAX_TTL_S = 3600
const MAX_RATE = 10_000
const MAX_PER_S = 86_400
/** A list of more is a mistake. */
const MAX_LISTED = 16

/** Every obligation there is. One that nobody carries out has no row. */
const WORDS = {
  ttl: number({ on: BOTH, most: MAX_TTL_S, allowed: `whole seconds from 1 to ${MAX_TTL_S}`, example: '300' }),
  single_use: flag(CALL),
  max_depth: {
    ...{ on: BOTH, allowed: 'delegations from 0 to 8', example: '2' }, // hops that a chain can have at all (LG/1 §1.6)
    read: (text: string) => (/^[0-8]$/.test(text) ? Number(text) : undefined),
  },
  foreign_credentials: choice(CALL, ['log', 'refuse'] as const),
  approval: list({ on: BOTH, item: NAME, allowed: 'groups of approvers, or human', example: 'on-call' }),
  approvers: number({ on: BOTH, most: 10, allowed: 'different people, from 1 to 10', example: '2' }),
  approval_ttl: number({ on: BOTH, most: MAX_TTL_S, allowed: `whole seconds from 1 to ${MAX_TTL_S}`, example: '300' }),
  fingerprint: list({ on: CALL, item: FIELD, allowed: 'header fields, lower case', example: 'x-account,if-match' }),
  rate: {
    ...{ on: CALL, allowed: `calls/seconds, up to ${MAX_RATE}/${MAX_PER_S}`, example: '60/60' },
    read: readRate,
  },
  read_only: flag(BOTH),
  downscope: choice(CALL, DOWNSCOPES),
  redact: list({ on: CALL, item: POINTER, allowed: 'JSON pointers, * for any member', example: '/items/*/email' }),
  notify: list({ on: BOTH, item: NAME, allowed: 'names that webhooks of the settings choose by', example: 'security' }),
  log: choice(CALL, ['full'] as const),
  revoke: choice(CALL, ['grant', 'task'] as const),
} satisfies Readonly<Record<string, Word<unknown>>>

type Name = keyof typeof WORDS
type Said = { -readonly [K in Name]?: NonNullable<ReturnType<(typeof WORDS)[K]['read']>> }

export const OBLIGATION_NAMES = Object.keys(WORDS) as readonly Name[]
const KNOWN = ['id', 'owner', 'review', ...OBLIGATION_NAMES]
/** The one thing that a refusal can oblige to. */
const ON_FORBID: readonly string[] = ['revoke']

/**
 * @param on what the scope of the policy can decide on.
 * @returns what the annotations say, or every fault in them.
 */
export function readAnnotations(
  annotations: Annotations,
  effect: 'permit' | 'forbid',
  on: readonly ('call' | 'grant')[] = BOTH,
): Annotated | AnnotationFault[] {
  const said: Said = {}
  const faults = [...unknownNames(annotations), ...identityFaults(annotations)]
  for (const name of OBLIGATION_NAMES) {
    const text = annotations[name]
    if (text !== undefined) faults.push(...faultsOf(name, text ?? '', { effect, on, said }))
  }
  faults.push(...loneFaults(said))
  if (faults.length > 0) return faults
  const { id, owner, review } = annotations
  return { id: id ?? '', owner: owner ?? '', ...(review && { review }), obligations: obligationsOf(said) }
}

interface Reading {
  readonly effect: 'permit' | 'forbid'
  readonly on: readonly ('call' | 'grant')[]
  readonly said: Said
}

function faultsOf<K extends Name>(name: K, text: string, { effect, on, said }: Reading): AnnotationFault[] {
  const word = WORDS[name] as Word<Said[K]>
  const got = `@${name}("${text}")`
  const isForForbid = ON_FORBID.includes(name)
  if ((effect === 'forbid') !== isForForbid) {
    if (isForForbid)
      return [{ got: `${got} on a permit`, allowed: 'on forbid only', fix: 'move it to the forbid whose calls end it' }]
    const allowed = `@${name} on permit only`
    return [
      { got: 'an obligation on a forbid', allowed, fix: 'move it to the permit: a refused call has nothing to oblige' },
    ]
  }
  if (!on.some((kind) => word.on.includes(kind))) {
    const where = word.on.includes('call') ? 'calls' : 'grants'
    return [{ got, allowed: `a policy for ${where}`, fix: `remove @${name}: nobody would carry it out here` }]
  }
  const value = word.read(text)
  if (value === undefined) {
    const fix = `write @${name}("${word.example}")${word.allowed === 'true' ? ', or remove it' : ''}`
    return [{ got, allowed: word.allowed, fix }]
  }
  said[name] = value
  return []
}

/** These say how somebody consents, which is nothing without who. */
function loneFaults(said: Said): AnnotationFault[] {
  if (said.approval !== undefined) return []
  const lone = (['approvers', 'approval_ttl', 'fingerprint'] as const).filter((name) => said[name] !== undefined)
  return lone.map((name) => ({
    got: `@${name} alone`,
    allowed: '@approval beside it',
    fix: 'write @approval("on-call") too, or remove it',
  }))
}

function unknownNames(annotations: Annotations): AnnotationFault[] {
  const unknown = Object.keys(annotations).filter((name) => !KNOWN.includes(name))
  return unknown.map((name) => ({
    got: `@${name}`,
    allowed: KNOWN.map((known) => `@${known}`).join(', '),
    fix: `remove @${name}: an obligation that nobody carries out would look like protection`,
  }))
}

function identityFaults({ id, owner, review }: Annotations): AnnotationFault[] {
  const faults: AnnotationFault[] = []
  if (!ID.test(id ?? '')) {
    const got = id ? `@id("${id}")` : 'no @id'
    const allowed = 'letters, digits, dot, underscore, hyphen; at most 80'
    faults.push({ got, allowed, fix: 'write @id("short-name") before the policy' })
  }
  if (!owner?.trim()) {
    const allowed = 'the team or person that answers for the policy'
    faults.push({ got: 'no @owner', allowed, fix: 'write @owner("team") before the policy' })
  }
  if (review !== undefined && !isDate(review ?? ''))
    faults.push({ got: `@review("${review ?? ''}")`, allowed: 'a day', fix: 'write @review("2027-01-31")' })
  return faults
}

function isDate(text: string): boolean {
  const time = /^\d{4}-\d\d-\d\d$/.test(text) ? Date.parse(text) : Number.NaN
  return !Number.isNaN(time) && new Date(time).toISOString().startsWith(text)
}

function obligationsOf(said: Said): Obligations {
  const { ttl, max_depth: maxDepth, foreign_credentials: foreignCredentials, rate, downscope } = said
  const { redact, notify, log, revoke } = said
  const approval = approvalOf(said)
  return {
    ttlS: ttl,
    singleUse: said.single_use === true,
    ...(maxDepth !== undefined && { maxDepth }),
    ...(foreignCredentials !== undefined && { foreignCredentials }),
    ...(approval !== undefined && { approval }),
    ...(rate !== undefined && { rates: [rate] }),
    ...(said.read_only !== undefined && { readOnly: true }),
    ...(downscope !== undefined && { downscope: downscope satisfies Downscope }),
    ...(redact !== undefined && { redact }),
    ...(notify !== undefined && { notify }),
    ...(log !== undefined && { log }),
    ...(revoke !== undefined && { revoke }),
  }
}

function approvalOf({ approval, approvers, approval_ttl, fingerprint }: Said): ApprovalTerms | undefined {
  if (approval === undefined) return undefined
  return { from: approval, count: approvers ?? 1, reuseS: approval_ttl, fields: fingerprint ?? [] }
}

function number(o: Omit<Word<number>, 'read'> & { readonly most: number }): Word<number> {
  return { ...o, read: (text) => (/^[1-9]\d{0,5}$/.test(text) && Number(text) <= o.most ? Number(text) : undefined) }
}

function flag(on: Word<true>['on']): Word<true> {
  return { on, allowed: 'true', example: 'true', read: (text) => (text === 'true' ? true : undefined) }
}

function choice<T extends string>(on: Word<T>['on'], all: readonly [T, ...T[]]): Word<T> {
  return { on, allowed: all.join(', '), example: all.at(-1) ?? '', read: (text) => all.find((one) => one === text) }
}

/** Separated by commas, sorted, each once. */
function list(o: Omit<Word<readonly string[]>, 'read'> & { readonly item: RegExp }): Word<readonly string[]> {
  return {
    ...o,
    read: (text) => {
      const items = [...new Set(text.split(',').map((item) => item.trim()))].sort()
      return items.length <= MAX_LISTED && items.every((item) => o.item.test(item)) ? items : undefined
    },
  }
}

function readRate(text: string): Rate | undefined {
  const [, n, per] = /^([1-9]\d{0,4})\/([1-9]\d{0,4})$/.exec(text) ?? []
  if (n === undefined || per === undefined || Number(n) > MAX_RATE || Number(per) > MAX_PER_S) return undefined
  return { n: Number(n), perS: Number(per) }
}
