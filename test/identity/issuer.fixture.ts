/**
 * A real issuer: an HTTPS server on loopback that publishes a key set, with keys to sign with; and an identity room that trusts
 * what a test tells it to, reaching issuers only through the guarded dial.
 */
import { createSecretKey, generateKeyPairSync, type KeyObject, randomBytes, randomUUID } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import { CompactSign } from 'jose'
import { createIdentities, type IdentitiesOptions } from '../../gateway/identity/identities.ts'
import { trustSchema } from '../../gateway/identity/trust.ts'
import { systemClock } from '../../gateway/protocol/clock.ts'
import type { Identities } from '../../gateway/protocol/identity.ts'
import { createUpstream } from '../../gateway/upstream/forward.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'
import { makeAuthority } from '../upstream/certificate.fixture.ts'
import { listen, shut } from '../upstream/upstream.fixture.ts'

export const GATEWAY = 'https://keyless.acme.test'
export const ISSUER_HOST = 'id.acme.test'
/** Start of `manualClock`, epoch seconds. */
export const NOW_S = Date.UTC(2026, 5, 1, 12) / 1000

export type Alg = 'RS256' | 'PS256' | 'ES256' | 'ES384' | 'Ed25519'

export interface SigningKey {
  readonly kid: string
  readonly alg: Alg
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

export function signingKey(alg: Alg = 'ES256', kid: string = randomUUID()): SigningKey {
  return { kid, alg, ...pairFor(alg) }
}

function pairFor(alg: Alg): { privateKey: KeyObject; publicKey: KeyObject } {
  switch (alg) {
    case 'ES256':
      return generateKeyPairSync('ec', { namedCurve: 'P-256' })
    case 'ES384':
      return generateKeyPairSync('ec', { namedCurve: 'P-384' })
    case 'Ed25519':
      return generateKeyPairSync('ed25519')
    default:
      return generateKeyPairSync('rsa', { modulusLength: 2048 })
  }
}

export function publicJwk({ publicKey, kid, alg }: SigningKey, more: object = {}): Record<string, unknown> {
  return { ...publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig', ...more }
}

type Fields = Readonly<Record<string, unknown>>

/** A compact JWS over these claims. Header members that are undefined are left out. */
export function sign(key: SigningKey, claims: Fields | string, header: Fields = {}): Promise<string> {
  const protectedHeader = JSON.parse(JSON.stringify({ alg: key.alg, kid: key.kid, typ: 'JWT', ...header }))
  const body = typeof claims === 'string' ? claims : JSON.stringify(claims)
  return new CompactSign(Buffer.from(body)).setProtectedHeader(protectedHeader).sign(key.privateKey)
}

export interface Issuer {
  readonly url: string
  readonly jwksUri: string
  /** Root certificate that its server's is signed with. */
  readonly ca: string
  /** What the key set holds now. */
  keys: Record<string, unknown>[]
  /** Takes the place of the key set. */
  answer: ((request: IncomingMessage, response: ServerResponse) => void) | undefined
  /** Requests that arrived. */
  readonly requests: () => number
  stop(): Promise<void>
}

export async function startIssuer(...keys: readonly SigningKey[]): Promise<Issuer> {
  const authority = await makeAuthority()
  let requests = 0
  const server = createServer(await authority.issue([ISSUER_HOST, '127.0.0.1']), (request, response) => {
    requests += 1
    if (issuer.answer) issuer.answer(request, response)
    else response.setHeader('content-type', 'application/json').end(JSON.stringify({ keys: issuer.keys }))
  })
  const url = `https://${ISSUER_HOST}:${await listen(server)}`
  const issuer: Issuer = {
    url,
    jwksUri: `${url}/jwks`,
    ca: authority.pem,
    keys: keys.map((key) => publicJwk(key)),
    answer: undefined,
    requests: () => requests,
    stop: () => shut(server),
  }
  return issuer
}

export interface Room {
  readonly identities: Identities
  readonly clock: ManualClock
  /** Names that were used up. */
  readonly seen: Set<string>
  stop(): Promise<void>
}

/** @param trust as settings write it, audiences complete. */
export function openRoom(trust: unknown, ca: readonly string[] = [], change: Partial<IdentitiesOptions> = {}): Room {
  const clock = manualClock()
  const seen = new Set<string>()
  const upstream = createUpstream({
    connectTimeoutMs: 1_000,
    headersTimeoutMs: 1_000,
    bodyTimeoutMs: 1_000,
    ca,
    hosts: new Map([[ISSUER_HOST, '127.0.0.1']]),
    clock: systemClock,
  })
  const identities = createIdentities({
    trust: trustSchema.parse(trust),
    issuer: GATEWAY,
    fetchFor: (addresses) => upstream.fetchFor(addresses),
    once: (name) => !seen.has(name) && seen.add(name).has(name),
    clock,
    nonceKey: createSecretKey(randomBytes(32)),
    ...change,
  })
  return { identities, clock, seen, stop: () => upstream.close() }
}

/** What loopback issuers need in settings: nothing but public addresses is dialled otherwise. */
export const LOOPBACK: readonly string[] = ['127.0.0.0/8']
