/**
 * The interface of a kind of upstream credential. One file per provider, joined in `registry.ts`. A provider never sees the
 * agent's request before policy, never logs, never caches and never retries: lease, single-flight, cache and audit are
 * wrapped around it, so it cannot forget them.
 */

import type { Grant } from '../protocol/grant.ts'
import type { Outbound } from '../protocol/message.ts'
import type { Secret } from '../protocol/secret.ts'
import type { Service } from '../protocol/service.ts'

export interface Credential {
  readonly secret: Secret
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
   * Get a credential.
   * @throws {GatewayError} `credential_unavailable` (try later), `credential_rejected` (the issuer said no),
   *   `credential_too_wide` (it granted more than was asked).
   */
  issue(request: IssueRequest, signal: AbortSignal): Promise<Credential>
  /** Put the credential where the service takes it. `outbound` holds no credential of any slot any more. */
  attach(credential: Credential, outbound: Outbound): Outbound | Promise<Outbound>
  /**
   * Values other than `credential.secret` that travel once it is attached, such as the Base64 pair of Basic: they must not
   * come back either. Asked once per credential; absent means that only the secret itself travels.
   */
  derived?(credential: Credential, service: Service): readonly Secret[]
  /** End the credential at its issuer, where the issuer offers it. Failure is recorded, never raised to the agent. */
  revoke?(credential: Credential, signal: AbortSignal): Promise<void>
}

/** `fetch` through the guarded dial: the only way a provider reaches the network. */
export type GuardedFetch = typeof globalThis.fetch
