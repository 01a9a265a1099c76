/** Who somebody is, as verified from what was presented. Made only by the room `identity`; nobody else reads tokens of others. */
import type { KeyObject } from 'node:crypto'
import type { Confirmation, Human } from './grant.ts'

export type WorkloadKind =
  | 'jwt-svid'
  | 'x509-svid'
  | 'kubernetes'
  | 'github-actions'
  | 'oidc'
  | 'aws-iam'
  | 'private_key_jwt'

/** What DPoP proofs may be signed with; the metadata's `dpop_signing_alg_values_supported`. */
export const DPOP_ALGORITHMS: readonly string[] = ['ES256', 'Ed25519', 'RS256', 'PS256', 'ES384']

/** A verified workload. */
export interface Workload {
  /** Agent id that the identity maps to; by preference the SPIFFE ID itself. Whether it is registered is for `grant`. */
  readonly id: string
  readonly kind: WorkloadKind
  /** Who vouches: issuer, trust domain, AWS account. */
  readonly issuer: string
  /** Which running instance: pod uid, run id and attempt, session name. */
  readonly instance?: string
  /** Claims as the issuer's table maps them; short strings, for policy and record. */
  readonly attributes: Readonly<Record<string, string>>
  /** Epoch seconds after which the evidence is void. A grant may outlive it, unless it is bound to `cnf`. */
  readonly expiresAt: number
  /** Key proved along with the identity: the certificate of an X.509-SVID. */
  readonly cnf?: Confirmation
}

/** Token types of RFC 8693 §3 and ours, short. */
export type TokenType = 'access_token' | 'id_token' | 'jwt' | 'jwt-svid' | 'aws-iam' | 'aat-chain'

export interface PresentedToken {
  readonly token: string
  readonly type: TokenType
}

/** Evidence of client authentication at the token endpoint, unread. */
export interface ClientEvidence {
  /** `client_id` of the form, a claim until something proves it. */
  readonly clientId?: string
  /** RFC 7523 and the SPIFFE profile. */
  readonly assertion?: { readonly type: 'jwt-bearer' | 'jwt-spiffe'; readonly token: string }
  /** Leaf first, DER, as the TLS handshake proved possession of. */
  readonly certificates?: readonly Buffer[]
  /** Compact JWS of the `DPoP` header. */
  readonly dpop?: string
}

/** What the room offers to the flow of instructions. Every refusal is a GatewayError that says what was wrong, never the token. */
export interface Identities {
  /** @throws {GatewayError} `subject_invalid` */
  human(presented: PresentedToken): Promise<{ readonly human: Human; readonly mayAct?: readonly string[] }>
  /** @throws {GatewayError} `actor_invalid` */
  workload(presented: PresentedToken): Promise<Workload>
  /**
   * The authenticated client; undefined when nothing was presented.
   * @throws {GatewayError} `client_invalid`
   */
  client(evidence: ClientEvidence): Promise<Workload | undefined>
  /**
   * Key of the root token of an AAT chain, as that token names it; undefined for what nobody trusts.
   * @throws {GatewayError} `subject_invalid` when the issuer's keys cannot be had
   */
  chainKey(root: {
    readonly issuer: string
    readonly kid: string | undefined
    readonly alg: string
  }): Promise<KeyObject | undefined>
  /**
   * RFC 9449 §4.3. `url` is built from settings, never from the request's Host.
   * @returns the thumbprint of the proved key. @throws {GatewayError} `dpop_invalid`, `dpop_nonce_required`
   */
  proof(dpop: string, request: { method: string; url: string; accessToken?: string }): Promise<{ readonly jkt: string }>
  /** A nonce for the next proof (RFC 9449 §8). */
  nonce(): string
}
