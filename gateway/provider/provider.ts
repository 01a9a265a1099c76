/**
 * The interface of a kind of upstream credential. One file per provider, joined in `registry.ts`. A provider never sees the
 * agent's request before policy, never logs, never caches and never retries: lease, single-flight, cache and audit are
 * wrapped around it, so it cannot forget them.
 */

import type { Grant } from '../protocol/grant.ts'
import type { AnswerHead, ClientCertificate, Outbound, Rejection } from '../protocol/message.ts'
import type { Secret } from '../protocol/secret.ts'
import type { Endpoint, Service } from '../protocol/service.ts'
import type { Certified, ClientTerms } from './client-authority.ts'

export interface Credential {
  readonly secret: Secret
  /**
   * What belongs to it besides, by name: a user name, a certificate chain, the id by which its issuer knows it. Sealed with it;
   * which of them must not come back, `derived` says. A slot with `part` takes one of these instead of `secret`.
   */
  readonly parts?: Readonly<Record<string, Secret>>
  /** Epoch seconds; `Infinity` for a standing key. */
  readonly expiresAt: number
  /** False for a standing key: it is counted and reported, and only the lease around it ends. */
  readonly ephemeral: boolean
  /** Scope that the issuer really granted, where it says so. */
  readonly scope?: string
}

/** Whom a credential is for. Providers that can carry lineage to the upstream read it from here. */
export interface IssueRequest {
  readonly service: Service
  readonly grant: Grant
  /** Upper bound in seconds that policy and grant leave; a provider asks for no more where its API takes a lifetime. */
  readonly ttlS: number
  /** What `Provider.role` said of the call, where it says something. */
  readonly role: string | undefined
}

export interface Provider {
  /** Key in settings = field in records = metric label = docs page. */
  readonly name: string
  /** How far a credential can be narrowed upstream. */
  readonly narrows: 'none' | 'scope' | 'resource' | 'policy'
  /**
   * Everything about this configured provider that changes what its credentials can do (issuer, client id, scope, key
   * reference), as one canonical string without secrets. Part of the lease key.
   */
  readonly identity: string
  /**
   * As how little the credential for this call will do, worked out from the request and the grant: a repository and its permissions.
   * Canonical text, part of the lease key: two calls share a credential only if it is equal. Runs on every call, so it is pure and
   * fast. Absent: every call of a grant gets the same credential.
   * @throws {GatewayError} for a call that no credential of this provider is meant for.
   */
  role?(endpoint: Endpoint, grant: Grant): string
  /**
   * Get a credential.
   * @throws {GatewayError} `credential_unavailable` (try later), `credential_rejected` (the issuer said no),
   *   `credential_too_wide` (it granted more than was asked).
   */
  issue(request: IssueRequest, signal: AbortSignal): Promise<Credential>
  /**
   * Let a credential live longer that its issuer can prolong. @returns it with a later `expiresAt`; undefined when it cannot be
   * prolonged any more, and another one is to be issued.
   */
  renew?(credential: Credential, request: IssueRequest, signal: AbortSignal): Promise<Credential | undefined>
  /** Put the credential where the service takes it. `outbound` holds no credential of any slot any more. */
  attach(credential: Credential, outbound: Outbound): Outbound | Promise<Outbound>
  /**
   * Values other than `credential.secret` that travel once it is attached, such as the Base64 pair of Basic: they must not
   * come back either. Asked once per credential; absent means that only the secret itself travels.
   */
  derived?(credential: Credential, service: Service): readonly Secret[]
  /** Whether an upstream says by this answer that it does not take the credential. Asked of 4xx alone. Default: status 401. */
  isRejection?(answer: AnswerHead): Rejection
  /**
   * The upstream asked for something that this credential can give when it is attached again, such as a nonce (RFC 9449 §9).
   * @returns whether it is worth attaching again; if not, another credential is issued.
   */
  accommodates?(credential: Credential, answer: AnswerHead): boolean
  /** End the credential at its issuer, where the issuer offers it. Failure is recorded, never raised to the agent. */
  revoke?(credential: Credential, signal: AbortSignal): Promise<void>
}

/** `fetch` through the guarded dial: the only way a provider reaches the network. */
export type GuardedFetch = typeof globalThis.fetch

/** @param addresses CIDR ranges it may reach besides public ones. @param certificate what it shows of itself in TLS. */
export type FetchFor = (addresses: readonly string[], certificate?: ClientCertificate) => GuardedFetch

/** JWTs by which the gateway says to others for whom it asks. Whoever fetches its published keys can verify them; none is a grant. */
export interface Assertions {
  /** `iss` of them all; an OpenID provider's metadata is published there. */
  readonly issuer: string
  /**
   * Sign a JWT of these claims, to which `iss`, `aud`, `iat`, `exp` and `jti` are added.
   * @param lifeS seconds, at most 600
   */
  sign(claims: Readonly<Record<string, unknown>>, terms: AssertionTerms): Promise<Secret>
}

export interface AssertionTerms {
  readonly audience: string
  readonly lifeS: number
  /** Default ES256. RS256 for verifiers that know nothing newer. */
  readonly algorithm?: 'ES256' | 'RS256'
}

/**
 * A client certificate of the gateway's own client CA, with a key of its own. Throws `credential_unconfigured` where that CA can be neither
 * read nor made.
 */
export type CertifyClient = (terms: Omit<ClientTerms, 'nowMs'>) => Promise<Certified>
