/**
 * Tokens that only their holder can use (RFC 9449): the gateway makes a key for each token, keeps it beside the token, and proves in every
 * request that it has it. Whoever reads a token from a log or an answer has nothing.
 */
import {
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  hash,
  type KeyObject,
  randomUUID,
  sign,
} from 'node:crypto'
import type { Clock } from '../../protocol/clock.ts'
import type { AnswerHead, Outbound } from '../../protocol/message.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import type { Service } from '../../protocol/service.ts'
import { DEFAULT_PORTS, formatAuthority } from '../../protocol/target.ts'
import type { Placement } from '../placement/placement.ts'
import type { Credential } from '../provider.ts'

/** Name of the part of a credential that holds its key. It never travels. */
export const PROOF_KEY = 'dpop_key'

/** RFC 9449 §8.1: NQCHAR. The bound is ours: what is longer is no nonce but a load that every request would carry. */
const NONCE = /^[\x21\x23-\x5b\x5d-\x7e]{1,512}$/

interface ProofKey {
  readonly key: KeyObject
  /** Public half, members in the order of RFC 7638. */
  readonly jwk: object
  /** RFC 7638. */
  readonly thumbprint: string
}

export interface ProofOf {
  readonly method: string
  /** Without query and fragment (RFC 9449 §4.2). */
  readonly url: string
  readonly nonce?: string | undefined
  /** base64url SHA-256 of the token that is shown along. */
  readonly ath?: string
}

export interface Proofs {
  /** Compact JWS for one request. */
  proof(key: Secret, of: ProofOf): string
  /** RFC 7638 thumbprint: what `cnf.jkt` of a token bound to this key holds. */
  thumbprint(key: Secret): string
  /** The request with token and proof. @throws {GatewayError} `credential_unconfigured` for a service that takes no Authorization field */
  attach(credential: Credential, outbound: Outbound): Outbound | Promise<Outbound>
  /** Whether the service wants the same again with the nonce that it just gave (RFC 9449 §9). */
  accommodates(credential: Credential, answer: AnswerHead): boolean
}

/** A fresh key for one token: P-256, as private JWK. */
export function newProofKey(): Secret {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return new Secret(JSON.stringify(privateKey.export({ format: 'jwk' })))
}

export function createProofs(clock: Clock, placement: Placement): Proofs {
  /** Worked out once per credential, not once per request; they die with it. */
  const keys = new WeakMap<Secret, ProofKey>()
  const digests = new WeakMap<Secret, string>()
  /** Service → nonce that it gave last: the next token begins with it. */
  const nonces = new Map<string, string>()
  /** Token → service that it was last attached for. */
  const usedFor = new WeakMap<Secret, string>()

  const keyOf = (secret: Secret) => known(keys, secret, readKey)
  const proof = (secret: Secret, { method, url, nonce, ath }: ProofOf) => {
    const { key, jwk } = keyOf(secret)
    const iat = Math.floor(clock.nowMs() / 1000)
    const input = [
      { typ: 'dpop+jwt', alg: 'ES256', jwk },
      { jti: randomUUID(), htm: method, htu: url, iat, nonce, ath },
    ]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.')
    const signature = sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' })
    return `${input}.${signature.toString('base64url')}`
  }
  return {
    proof,
    thumbprint: (secret) => keyOf(secret).thumbprint,
    attach(credential, outbound) {
      const { scheme, method, path, service } = outbound
      usedFor.set(credential.secret, service.name)
      const authority = formatAuthority(outbound, DEFAULT_PORTS[scheme])
      const made = proof(keyPart(credential), {
        method,
        url: `${scheme}://${authority}${path.split('?', 1)[0]}`,
        nonce: nonces.get(service.name),
        ath: known(digests, credential.secret, (token) => hash('sha256', token.reveal(), 'base64url')),
      })
      const headers = [...outbound.headers, 'DPoP', made]
      const placed = placement.place(credential, { ...outbound, headers, service: asDpop(service) })
      return placed instanceof Promise ? placed.then((done) => ({ ...done, service })) : { ...placed, service }
    },
    accommodates({ secret }, { status, raw }) {
      if (status !== 401 || !fieldsOf(raw, 'www-authenticate').some(asksForNonce)) return false
      const [nonce, ...more] = fieldsOf(raw, 'dpop-nonce')
      const service = usedFor.get(secret)
      if (nonce === undefined || more.length > 0 || !NONCE.test(nonce) || service === undefined) return false
      // Another call may have learnt the same one meanwhile. Who goes on asking is stopped by the lease: a call is sent twice at most.
      nonces.set(service, nonce)
      return true
    },
  }
}

/** A nonce in an answer of a token endpoint; undefined when there is none or it is none. */
export function nonceIn(answer: Response): string | undefined {
  const text = answer.headers.get('dpop-nonce')
  return text !== null && NONCE.test(text) ? text : undefined
}

function readKey(secret: Secret): ProofKey {
  const key = createPrivateKey({ key: JSON.parse(secret.reveal()), format: 'jwk' })
  const { crv, kty, x, y } = createPublicKey(key).export({ format: 'jwk' })
  const jwk = { crv, kty, x, y }
  return { key, jwk, thumbprint: hash('sha256', JSON.stringify(jwk), 'base64url') }
}

function keyPart({ parts }: Credential): Secret {
  const key = parts?.[PROOF_KEY]
  if (key === undefined) throw new TypeError('a DPoP token without its key was issued')
  return key
}

/** Memo of a pure function of the service. */
const dpopServices = new WeakMap<Service, Service>()

/** RFC 9449 §7.1: `Authorization: DPoP <token>`, where the service takes bearer tokens otherwise. */
function asDpop(service: Service): Service {
  return known(dpopServices, service, () => {
    const [slot] = service.slots
    if (slot?.in !== 'header' || slot.name.toLowerCase() !== 'authorization')
      throw new GatewayError(
        'credential_unconfigured',
        `A DPoP-bound token travels in the field Authorization, which is not the first slot of ${service.name}. Correct its slots, or leave dpop away from credential "${service.credential}".`,
      )
    return { ...service, slots: [{ ...slot, prefix: 'DPoP ' }] }
  })
}

/** RFC 9449 §9. Quoted or not; whatever else is in the challenge. */
function asksForNonce(challenge: string): boolean {
  return /(?:^|[\s,])dpop\b/i.test(challenge) && /\berror\s*=\s*"?use_dpop_nonce\b/i.test(challenge)
}

function fieldsOf(raw: readonly Buffer[], name: string): string[] {
  return raw.flatMap((field, i) =>
    i % 2 === 0 && field.length === name.length && field.toString('latin1').toLowerCase() === name
      ? [(raw[i + 1] as Buffer).toString('latin1')]
      : [],
  )
}

function known<K extends object, V>(memo: WeakMap<K, V>, of: K, make: (of: K) => V): V {
  const before = memo.get(of)
  if (before !== undefined) return before
  const made = make(of)
  memo.set(of, made)
  return made
}
