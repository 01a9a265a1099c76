/** Annotations of policies: who owns a policy, and what its yes obliges to. Cedar itself never looks at them. */
import type { Obligations } from '../protocol/decision.ts'

export const NO_OBLIGATIONS: Obligations = Object.freeze({ ttlS: undefined, singleUse: false })

export interface Annotated {
  readonly id: string
  readonly owner: string
  readonly obligations: Obligations
}

/** One annotation that is wrong; the place is known to the caller. */
export interface AnnotationFault {
  readonly got: string
  readonly allowed: string
  readonly fix: string
}

const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$/
const MAX_TTL_S = 3600
/** Hops that a chain can have at all (LG/1 §1.6). */
const MAX_DEPTH = 8

type Annotations = Readonly<Record<string, string | null>>

/** @returns what the annotations say, or every fault in them. */
export function readAnnotations(annotations: Annotations, effect: 'permit' | 'forbid'): Annotated | AnnotationFault[] {
  const { id, owner, ttl, single_use: singleUse, max_depth: maxDepth, foreign_credentials: foreign } = annotations
  const faults = [
    ...unknownNames(annotations),
    ...identityFaults(id, owner),
    ...obligationFaults({ ttl, singleUse, maxDepth, foreign }, effect),
  ]
  if (faults.length > 0) return faults
  const obligations: Obligations = {
    ttlS: ttl ? Number(ttl) : undefined,
    singleUse: singleUse === 'true',
    ...(maxDepth && { maxDepth: Number(maxDepth) }),
    ...((foreign === 'log' || foreign === 'refuse') && { foreignCredentials: foreign }),
  }
  return { id: id ?? '', owner: owner ?? '', obligations }
}

const KNOWN = ['id', 'owner', 'ttl', 'single_use', 'max_depth', 'foreign_credentials']

function unknownNames(annotations: Annotations): AnnotationFault[] {
  const unknown = Object.keys(annotations).filter((name) => !KNOWN.includes(name))
  return unknown.map((name) => ({
    got: `@${name}`,
    allowed: KNOWN.map((known) => `@${known}`).join(', '),
    fix: `remove @${name}: an obligation that nobody carries out would look like protection`,
  }))
}

type Text = string | null | undefined

function identityFaults(id: Text, owner: Text): AnnotationFault[] {
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
  return faults
}

interface Written {
  readonly ttl: Text
  readonly singleUse: Text
  readonly maxDepth: Text
  readonly foreign: Text
}

function obligationFaults(written: Written, effect: 'permit' | 'forbid'): AnnotationFault[] {
  const { ttl, singleUse, maxDepth, foreign } = written
  const faults: AnnotationFault[] = []
  if (ttl !== undefined && !isTtl(ttl)) {
    const allowed = `whole seconds from 1 to ${MAX_TTL_S}`
    faults.push({ got: `@ttl("${ttl ?? ''}")`, allowed, fix: 'write @ttl("300")' })
  }
  if (singleUse !== undefined && singleUse !== 'true') {
    const fix = 'write @single_use("true"), or remove it'
    faults.push({ got: `@single_use("${singleUse ?? ''}")`, allowed: 'true', fix })
  }
  if (maxDepth !== undefined && !/^[0-8]$/.test(maxDepth ?? '')) {
    const allowed = `delegations from 0 to ${MAX_DEPTH}`
    faults.push({ got: `@max_depth("${maxDepth ?? ''}")`, allowed, fix: 'write @max_depth("2")' })
  }
  if (foreign !== undefined && foreign !== 'log' && foreign !== 'refuse') {
    const fix = 'write @foreign_credentials("refuse"), or remove it'
    faults.push({ got: `@foreign_credentials("${foreign ?? ''}")`, allowed: 'log, refuse', fix })
  }
  if (effect === 'forbid' && Object.values(written).some((text) => text !== undefined)) {
    const fix = 'move it to the permit: a refused call has nothing to oblige'
    const allowed = '@ttl, @single_use, @foreign_credentials and @max_depth on permit only'
    faults.push({ got: 'an obligation on a forbid', allowed, fix })
  }
  return faults
}

function isTtl(text: string | null): boolean {
  return text !== null && /^[1-9][0-9]{0,3}$/.test(text) && Number(text) <= MAX_TTL_S
}

/** Strictest wins: the shortest life, the fewest delegations, and once if any policy says once; what one refuses is not merely logged. */
export function combine(all: readonly Obligations[]): Obligations {
  const ttlS = least(all.map((one) => one.ttlS))
  const maxDepth = least(all.map((one) => one.maxDepth))
  const singleUse = all.some((one) => one.singleUse)
  const wanted = all.map((one) => one.foreignCredentials)
  const foreign = wanted.find((one) => one === 'refuse') ?? wanted.find((one) => one !== undefined)
  if (ttlS === undefined && maxDepth === undefined && !singleUse && foreign === undefined) return NO_OBLIGATIONS
  return {
    ...{ ttlS, singleUse },
    ...(maxDepth !== undefined && { maxDepth }),
    ...(foreign !== undefined && { foreignCredentials: foreign }),
  }
}

/** What nobody bounds stays unbounded. */
function least(bounds: readonly (number | undefined)[]): number | undefined {
  const given = bounds.filter((bound) => bound !== undefined)
  return given.length === 0 ? undefined : Math.min(...given)
}
