/**
 * What an agent's own AWS signature claims, read from a request before it is stripped. Nothing of it is believed: its key is a
 * placeholder. It only says how its client meant to sign: for which region and service, where, and with what said of the body. Pure.
 */
import { GatewayError } from './problem.ts'

export const AWS4 = 'AWS4-HMAC-SHA256'
/** Asymmetric, for several regions at once (multi-Region access points). */
export const AWS4A = 'AWS4-ECDSA-P256-SHA256'

type RawHeaders = readonly string[]

export interface AwsClaim {
  /** Absent: the request was not signed, or in a way older than version 4. */
  readonly scope?: AwsScope
  /** Presigned URLs are signed in the query. */
  readonly place: 'header' | 'query'
  /** `X-Amz-Content-Sha256` as sent: a hash in hex, or how the body is signed. */
  readonly payload?: string
  /** When a presigned URL ends: epoch seconds. */
  readonly endsAt?: number
}

export interface AwsScope {
  readonly algorithm: typeof AWS4 | typeof AWS4A
  /** `eu-west-1`; for `AWS4A` a list such as `eu-west-1,us-east-1`, or `*`. */
  readonly region: string
  /** What the service is called in signatures: `s3`, `bedrock`. */
  readonly service: string
}

/** Fields that belong to a signature, lower case; `Authorization` is one of every service. */
export const AWS_SIGNATURE_FIELDS: readonly string[] = [
  'x-amz-date',
  'x-amz-security-token',
  'x-amz-content-sha256',
  'x-amz-region-set',
  'x-amz-s3session-token',
]

/** Parameters that belong to a signature, lower case; of version 2, those of S3. */
const PARAMETERS: ReadonlySet<string> = new Set([
  ...AWS_SIGNATURE_FIELDS,
  'x-amz-algorithm',
  'x-amz-credential',
  'x-amz-expires',
  'x-amz-signedheaders',
  'x-amz-signature',
  'awsaccesskeyid',
  'signature',
])

const REGION = /^[a-z0-9-]{1,32}$/
const REGION_SET = /^(?:\*|[a-z0-9-]{1,32}(?:\*)?)(?:,(?:\*|[a-z0-9-]{1,32}(?:\*)?)){0,15}$/
const SERVICE = /^[a-z0-9-]{1,64}$/

/**
 * @param rawPath path and query as received
 * @throws {GatewayError} `request_malformed` for more than one signature, and for one that cannot be read in one way only.
 */
export function readAwsClaim(rawHeaders: RawHeaders, rawPath: string): AwsClaim {
  const [authorization, ...second] = fieldValues(rawHeaders, 'authorization').filter((value) => /^AWS4-/i.test(value))
  const query = signatureParameters(rawPath)
  if (second.length > 0 || (authorization !== undefined && query.has('x-amz-algorithm')))
    throw malformed('it is there twice')
  const payload = onlyOne(fieldValues(rawHeaders, 'x-amz-content-sha256'), 'x-amz-content-sha256')
  const declared = payload === undefined ? {} : { payload }
  if (authorization !== undefined)
    return { place: 'header', ...declared, scope: headerScope(authorization, rawHeaders) }
  if (!query.has('x-amz-algorithm')) return { place: 'header', ...declared }
  return { place: 'query', ...declared, ...queryEnd(query), scope: queryScope(query) }
}

/** The path without anything of a signature in its query, however it is spelled; every other byte stays. */
export function withoutAwsSignature(rawPath: string): string {
  const mark = rawPath.indexOf('?')
  if (mark === -1) return rawPath
  const parts = rawPath.slice(mark + 1).split('&')
  const names = parts.map(parameterName)
  const isVersion2 = names.includes('awsaccesskeyid') // its `Expires` has a name that others use too
  const kept = parts.filter((_, i) => !isOfSignature(names[i] ?? '', isVersion2))
  if (kept.length === parts.length) return rawPath
  return kept.length === 0 ? rawPath.slice(0, mark) : `${rawPath.slice(0, mark)}?${kept.join('&')}`
}

function isOfSignature(name: string, isVersion2: boolean): boolean {
  return PARAMETERS.has(name) || (isVersion2 && name === 'expires')
}

function headerScope(authorization: string, rawHeaders: RawHeaders): AwsScope {
  const [algorithm = '', ...rest] = authorization.trim().split(/[ ]+/)
  const members = rest.join(' ').split(',')
  const credentials = members.flatMap((member) => {
    const [name, ...value] = member.trim().split('=')
    return name?.toLowerCase() === 'credential' ? [value.join('=')] : []
  })
  const regions = onlyOne(fieldValues(rawHeaders, 'x-amz-region-set'), 'x-amz-region-set')
  return scopeOf(algorithm, onlyOne(credentials, 'Credential') ?? '', regions)
}

function queryScope(query: ReadonlyMap<string, readonly string[]>): AwsScope {
  const one = (name: string) => onlyOne(query.get(name) ?? [], name)
  return scopeOf(one('x-amz-algorithm') ?? '', one('x-amz-credential') ?? '', one('x-amz-region-set'))
}

/** `AKID/20260101/eu-west-1/s3/aws4_request`; of version 4a without a region, which is in `X-Amz-Region-Set`. */
function scopeOf(algorithm: string, credential: string, regionSet: string | undefined): AwsScope {
  const parts = credential.split('/')
  const isAsymmetric = algorithm === AWS4A
  if (!isAsymmetric && algorithm !== AWS4)
    throw malformed('its algorithm is neither AWS4-HMAC-SHA256 nor AWS4-ECDSA-P256-SHA256')
  const [service = '', end = ''] = parts.slice(-2)
  const region = isAsymmetric ? (regionSet ?? '') : (parts.at(-3) ?? '')
  const date = parts.at(isAsymmetric ? -3 : -4) ?? ''
  const isWhole = parts.length >= (isAsymmetric ? 4 : 5) && end === 'aws4_request' && /^\d{8}$/.test(date)
  if (!isWhole || !SERVICE.test(service) || !(isAsymmetric ? REGION_SET : REGION).test(region))
    throw malformed('its Credential is not <key>/<date>/<region>/<service>/aws4_request')
  return { algorithm: isAsymmetric ? AWS4A : AWS4, region, service }
}

function queryEnd(query: ReadonlyMap<string, readonly string[]>): Pick<AwsClaim, 'endsAt'> {
  const date = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(
    onlyOne(query.get('x-amz-date') ?? [], 'x-amz-date') ?? '',
  )
  const expires = onlyOne(query.get('x-amz-expires') ?? [], 'x-amz-expires') ?? ''
  if (date === null || !/^\d{1,6}$/.test(expires)) throw malformed('its X-Amz-Date or X-Amz-Expires cannot be read')
  const [, year, month, day, hour, minute, second] = date.map(Number) as [number, ...number[]]
  const startMs = Date.UTC(year ?? 0, (month ?? 1) - 1, day, hour, minute, second)
  return { endsAt: startMs / 1000 + Number(expires) }
}

/** Lower-case name → values, decoded, of the parameters that belong to a signature. */
function signatureParameters(rawPath: string): Map<string, string[]> {
  const found = new Map<string, string[]>()
  const mark = rawPath.indexOf('?')
  for (const part of mark === -1 ? [] : rawPath.slice(mark + 1).split('&')) {
    const name = parameterName(part)
    if (!PARAMETERS.has(name)) continue
    const equals = part.indexOf('=')
    found.set(name, [...(found.get(name) ?? []), equals === -1 ? '' : decoded(part.slice(equals + 1))])
  }
  return found
}

function parameterName(part: string): string {
  const equals = part.indexOf('=')
  return decoded(equals === -1 ? part : part.slice(0, equals))
    .trim()
    .toLowerCase()
}

/** As often as it takes: a name that hides behind a second encoding is not passed on either. */
function decoded(text: string): string {
  let before = text
  for (let round = 0; round < 3 && /[%+]/.test(before); round++) {
    const after = before
      .replaceAll('+', ' ')
      .replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
    if (after === before) break
    before = after
  }
  return before
}

/** CGI and its heirs read `X_Amz_Date` as `X-Amz-Date`; such names are dropped, and claim nothing. */
function fieldValues(rawHeaders: RawHeaders, name: string): string[] {
  return rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1]?.toLowerCase() === name)
}

function onlyOne(values: readonly string[], name: string): string | undefined {
  if (values.length > 1) throw malformed(`${name} is in it ${values.length} times`)
  return values[0]?.trim()
}

function malformed(what: string): GatewayError {
  return new GatewayError(
    'request_malformed',
    `The AWS signature of the request cannot be read in one way: ${what}. Sign once, with any key, for the region and service that are meant.`,
  )
}
