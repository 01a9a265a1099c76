/**
 * Credential access boundaries of Cloud Storage: an upper bound on a token, worked out from the bucket and object in the path, the role
 * that the operation names, and the path patterns of every level of the grant. Pure. cloud.google.com/iam: "Credential Access
 * Boundaries overview".
 */
import { entriesFor, isPlaceOf } from '../../protocol/authority.ts'
import type { Authority, Grant } from '../../protocol/grant.ts'
import { type PathPattern, pathMatches } from '../../protocol/path-pattern.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Endpoint } from '../../protocol/service.ts'

export interface StorageRole {
  readonly bucket: string
  /** Objects that begin so; absent: all of the bucket. */
  readonly object?: string
  /** `object` is a whole name. */
  readonly isExact: boolean
  /** Predefined or custom role of IAM that holds the permissions needed: `roles/storage.objectViewer`. */
  readonly role: string
}

/** cloud.google.com/storage: "Bucket names". Longer ones have dots. */
const BUCKET = /^[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]$/
const IAM_ROLE = /^(?:(?:projects|organizations)\/[a-z0-9.:-]+\/)?roles\/[A-Za-z0-9._]+$/

/**
 * Canonical text of a `StorageRole`.
 * @param reach `bucket`: as far as the grant's paths go in it; `object`: the one in the path, where there is one.
 * @throws {GatewayError} `credential_unconfigured` for an operation that names no role or no bucket, `path_ambiguous`.
 */
export function storageRole(endpoint: Endpoint, grant: Grant, reach: 'bucket' | 'object'): string {
  const { params, operation } = endpoint
  const role = operation.permissions?.role
  if (role === undefined || !IAM_ROLE.test(role) || params.bucket === undefined)
    throw new GatewayError(
      'credential_unconfigured',
      `Operation ${operation.name} names no bucket in its path, or no role of Cloud Storage in the service file (permissions: { role: roles/storage.objectViewer }), so no access boundary can be drawn for it.`,
    )
  if (!BUCKET.test(params.bucket)) throw ambiguous('bucket')
  const [object, isExact] = params.object === undefined ? ['', false] : objectsFor(endpoint, grant, reach)
  return JSON.stringify([params.bucket, object, isExact, role])
}

export function parseStorageRole(text: string): StorageRole {
  const [bucket, object, isExact, role] = JSON.parse(text) as [string, string, boolean, string]
  return { bucket, ...(object !== '' && { object }), isExact, role }
}

/** As `sts.googleapis.com` takes it in `options`. One rule: a call is in one bucket. */
export function accessBoundary({ bucket, object, isExact, role }: StorageRole): object {
  const name = celText(`projects/_/buckets/${bucket}/objects/${object ?? ''}`)
  const expression = isExact ? `resource.name == ${name}` : `resource.name.startsWith(${name})`
  const rule = {
    availableResource: `//storage.googleapis.com/projects/_/buckets/${bucket}`,
    availablePermissions: [`inRole:${role}`],
    ...(object !== undefined && { availabilityCondition: { expression } }),
  }
  return { accessBoundary: { accessBoundaryRules: [rule] } }
}

/** A string literal of CEL. Names with control characters do not get here (`canonicalPath` refuses them). */
function celText(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
}

type Region = readonly [object: string, isExact: boolean]

/** All regions hold the object of the call, so of several levels the narrowest is what they have in common. */
function objectsFor(endpoint: Endpoint, grant: Grant, reach: 'bucket' | 'object'): Region {
  const object = (endpoint.params.object ?? '').replaceAll('%2F', '/')
  if (object === '' || /[\p{Cc}\\]/u.test(object)) throw ambiguous('object')
  const exact: Region = [object, true]
  if (reach === 'object') return exact
  const levels = [...grant.ancestry.map(({ authority }) => authority), grant.authority]
  return levels.map((authority) => regionOf(authority, endpoint, exact)).reduce(narrower)
}

/** What one level allows around the object, as far as a prefix can say it: otherwise the object alone. */
function regionOf(authority: readonly Authority[], endpoint: Endpoint, exact: Region): Region {
  const segments = endpoint.path.slice(1).split('/')
  // The object is what the path ends with.
  const before = segments.length - (endpoint.params.object ?? '').split('/').length
  const regions = entriesFor(authority, endpoint.operation.name)
    .filter((entry) => isPlaceOf(entry, endpoint))
    .flatMap(({ paths }): Region[] => {
      if (paths === undefined) return [['', false]]
      return paths.filter((path) => pathMatches(path, segments)).map((path) => prefixOf(path, before) ?? exact)
    })
  return regions.reduce((a, b) => (narrower(a, b) === a ? b : a), exact)
}

/** `/reports/2026/**` → all that begins with `2026/`. Undefined where a star stands before the tail. */
function prefixOf({ segments, hasTail }: PathPattern, before: number): Region | undefined {
  if (!hasTail || segments.slice(before).includes('*')) return undefined
  const parts = segments.slice(before)
  return [parts.length === 0 ? '' : `${parts.join('/').replaceAll('%2F', '/')}/`, false]
}

function narrower(a: Region, b: Region): Region {
  if (a[1] !== b[1]) return a[1] ? a : b
  return a[0].length >= b[0].length ? a : b
}

function ambiguous(what: string): GatewayError {
  return new GatewayError(
    'path_ambiguous',
    `The ${what} in the path is no name that Cloud Storage gives. Send the plain name.`,
  )
}
