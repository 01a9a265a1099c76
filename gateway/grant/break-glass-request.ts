/**
 * The sealed request of emergency access: written and signed without any gateway, read here. Every custodian signs the same bytes;
 * what counts is who signed, each person and each key once. Pure.
 */
import { createPublicKey, type KeyObject } from 'node:crypto'
import {
  BREAK_GLASS_MAX_S,
  type BreakGlassRequest,
  type Custodian,
  type SealedRequest,
} from '../protocol/break-glass.ts'
import { isUuidv7 } from '../protocol/id.ts'
import { GatewayError } from '../protocol/problem.ts'
import { isSignedBy, JwsError, readInput, readJws, signJws, thumbprintOf } from './chain/jws.ts'
import { checkPurpose } from './propose/draft.ts'

/** Seconds between `not_before` and `not_after`: what is older is asked for again. */
const OPEN_WINDOW_S = 3600

const TYPE = 'keyless-break-glass+jws'
const LIMIT = 16 * 1024
const MAX_SIGNATURES = 32
const NAME = /^[\x21-\x7e]{1,255}$/
const SCOPE_LIMIT = 4096

export interface Sealed {
  readonly sealed: SealedRequest
  readonly request: BreakGlassRequest
}

/** A request that nobody has signed yet. @throws {GatewayError} `instruction_invalid` */
export function draftSealed(request: BreakGlassRequest): SealedRequest {
  checkRequest(request)
  return { payload: Buffer.from(JSON.stringify(request)).toString('base64url'), signatures: [] }
}

/** @param value parsed JSON. @throws {GatewayError} `instruction_invalid` naming what it is not. */
export function readSealed(value: unknown): Sealed {
  const { payload, signatures } = (value ?? {}) as Partial<SealedRequest>
  const areThere = Array.isArray(signatures) && signatures.length <= MAX_SIGNATURES
  if (typeof payload !== 'string' || !areThere || !signatures.every(isSignature))
    throw invalid('what was given is no request of `keyless break-glass request`')
  try {
    const request = readInput(`e30.${payload}`, LIMIT).payload as unknown as BreakGlassRequest
    checkRequest(request)
    const plain = signatures.map(({ protected: header, signature }) => ({ protected: header, signature }))
    return { sealed: { payload, signatures: plain }, request }
  } catch (cause) {
    if (cause instanceof JwsError) throw invalid(`the request cannot be read: ${cause.message}`)
    throw cause
  }
}

/** The same request with the signatures of all. @throws {GatewayError} `instruction_invalid` when they are not of one request. */
export function mergeSealed(all: readonly SealedRequest[]): SealedRequest {
  const [first, ...rest] = all
  if (first === undefined || rest.some(({ payload }) => payload !== first.payload))
    throw invalid('the files hold different requests; every custodian has to sign the same one')
  const signatures = new Map(all.flatMap((one) => one.signatures).map((one) => [JSON.stringify(one), one]))
  return { payload: first.payload, signatures: [...signatures.values()] }
}

/** @param key private, Ed25519 */
export function signSealed({ payload, signatures }: SealedRequest, key: KeyObject): SealedRequest {
  // Signed as it stands: the same JSON written anew may be other bytes.
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8')) as object
  const [header = '', body, signature = ''] = signJws({ typ: TYPE, kid: thumbprintOf(key) }, claims, key).split('.')
  if (body !== payload) throw invalid('the request is not in the form that `keyless break-glass request` writes')
  const others = signatures.filter((one) => one.protected !== header)
  return { payload, signatures: [...others, { protected: header, signature }] }
}

/**
 * Names of the custodians who signed, sorted. One signature that does not verify spoils all: somebody changed the file.
 * @throws {GatewayError} `break_glass_refused` for a signature of nobody, or one that is wrong.
 */
export function sealersOf({ payload, signatures }: SealedRequest, custodians: readonly Custodian[]): readonly string[] {
  const keys = custodians.map(({ name, key }) => ({ name, key: custodianKey(key) }))
  const names = signatures.map(({ protected: header, signature }) => {
    const jws = jwsOf(`${header}.${payload}.${signature}`)
    const { typ, kid } = jws.header
    const known = keys.find(({ key }) => thumbprintOf(key) === kid)
    if (known === undefined || typ !== TYPE)
      throw refused('it carries a signature of a key that is not among `break_glass.custodians` in the settings')
    if (!isSignedBy(jws, known.key))
      throw refused(`the signature of ${known.name} is not of this request: the file was changed after it was signed`)
    return known.name
  })
  return [...new Set(names)].sort()
}

/** @param x 32 bytes, base64url. @throws {TypeError} when it is no Ed25519 key. */
function custodianKey(x: string): KeyObject {
  return createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' })
}

export function refused(why: string): GatewayError {
  return new GatewayError('break_glass_refused', `Emergency access is not opened: ${why}.`)
}

function jwsOf(text: string) {
  try {
    return readJws(text, LIMIT)
  } catch (cause) {
    if (cause instanceof JwsError) throw refused(`one of its signatures cannot be read: ${cause.message}`)
    throw cause
  }
}

function isSignature(one: unknown): one is SealedRequest['signatures'][number] {
  const { protected: header, signature } = (one ?? {}) as Record<string, unknown>
  return typeof header === 'string' && typeof signature === 'string'
}

const MEMBERS = ['id', 'tenant', 'at', 'who', 'agent', 'why', 'scope', 'ttl_s', 'not_before', 'not_after']

function checkRequest(request: BreakGlassRequest): void {
  const unknown = Object.keys(request).find((name) => !MEMBERS.includes(name))
  if (unknown !== undefined) throw invalid(`the request has a member ${JSON.stringify(unknown.slice(0, 40))}`)
  const { id, tenant, at, who, agent, why, scope, ttl_s: ttlS, not_before: from, not_after: until } = request
  if (typeof id !== 'string' || !isUuidv7(id)) throw invalid('the request has no id')
  const hosts: unknown = at ?? []
  const names = [tenant, who, agent, ...(Array.isArray(hosts) ? hosts : [undefined])]
  if (!names.every((name) => typeof name === 'string' && NAME.test(name)))
    throw invalid('tenant, who, agent and hosts are names of 1 to 255 printable characters without spaces')
  checkPurpose(typeof why === 'string' ? why : undefined)
  if (typeof scope !== 'string' || scope === '' || scope.length > SCOPE_LIMIT)
    throw invalid(`scope names operations in 1 to ${SCOPE_LIMIT} characters`)
  if (!Number.isSafeInteger(ttlS) || ttlS < 1 || ttlS > BREAK_GLASS_MAX_S)
    throw invalid(`a lifetime of ${ttlS} s was asked for; allowed are 1 to ${BREAK_GLASS_MAX_S} s`)
  const isWindow = Number.isSafeInteger(from) && Number.isSafeInteger(until) && until > from
  if (!isWindow || until - from > OPEN_WINDOW_S)
    throw invalid(`a request can be opened for at most ${OPEN_WINDOW_S} s after not_before`)
}

function invalid(what: string): GatewayError {
  return new GatewayError('instruction_invalid', `${what.charAt(0).toUpperCase()}${what.slice(1)}.`)
}
