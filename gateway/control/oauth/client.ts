/**
 * What a caller of the OAuth endpoints shows to say who it is, collected and not judged: the room of identities reads it. There
 * are no client secrets here, so whoever sends one is told so instead of being asked for a better one.
 */
import type { FastifyRequest } from 'fastify'
import { certificatesOf } from '../../door-tls.ts'
import type { ClientEvidence, Identities } from '../../protocol/identity.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { valuesOf } from '../../protocol/raw-headers.ts'
import type { Form } from './form.ts'

/** RFC 7523 §2.2 and draft-ietf-oauth-spiffe-client-auth. */
export const ASSERTION_TYPES = {
  'urn:ietf:params:oauth:client-assertion-type:jwt-bearer': 'jwt-bearer',
  'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe': 'jwt-spiffe',
} as const

/** Names of RFC 8414 §2, RFC 8705 §2 and draft-ietf-oauth-spiffe-client-auth for what these endpoints can be shown. */
export const AUTH_METHODS = {
  byAssertion: ['private_key_jwt', 'spiffe_jwt'],
  byCertificate: ['tls_client_auth', 'spiffe_x509'],
} as const

/**
 * @throws {GatewayError} `client_invalid` for a method that there is not, `instruction_invalid` for two at once (RFC 6749 §2.3)
 * or half of one, `dpop_invalid` for two proofs.
 */
export function evidenceOf(request: FastifyRequest, form: Form): ClientEvidence {
  const authorization = soleField(request, 'authorization')
  const shown = [authorization, form.client_secret, form.client_assertion].filter((one) => one !== undefined)
  if (shown.length > 1)
    throw new GatewayError('instruction_invalid', 'The client shows two ways of authentication. Use one.')
  if (authorization !== undefined || form.client_secret !== undefined)
    throw new GatewayError(
      'client_invalid',
      'There are no client secrets here. Authenticate with a client_assertion (private_key_jwt, JWT-SVID) or a TLS client certificate.',
    )
  const clientId = text(form.client_id)
  const assertion = assertionOf(text(form.client_assertion_type), text(form.client_assertion))
  const certificates = certificatesOf(request.raw.socket)
  const dpop = proofOf(request)
  return {
    ...(clientId && { clientId }),
    ...(assertion && { assertion }),
    ...(certificates && { certificates }),
    ...(dpop && { dpop }),
  }
}

export interface Prover {
  /** Where this door is, as clients are told. */
  readonly publicUrl: string
  readonly identities: Pick<Identities, 'proof'>
}

/** The key of the `DPoP` field, if there is one. The URL is the configured one: a Host field must not choose it (RFC 9449 §4.3). */
export async function provedKey(
  request: FastifyRequest,
  path: string,
  { identities, publicUrl }: Prover,
  accessToken?: string,
): Promise<string | undefined> {
  const dpop = proofOf(request)
  if (dpop === undefined) return undefined
  const proved = { method: 'POST', url: publicUrl + path, ...(accessToken !== undefined && { accessToken }) }
  return (await identities.proof(dpop, proved)).jkt
}

/** The compact JWS of the one `DPoP` field (RFC 9449 §4.3, check 1). */
function proofOf(request: FastifyRequest): string | undefined {
  return soleField(request, 'dpop', 'dpop_invalid')
}

/** A grant in `Authorization: Bearer` or `DPoP`; undefined when the field is absent. */
export function presentedGrant(request: FastifyRequest): { scheme: 'bearer' | 'dpop'; token: string } | undefined {
  const field = soleField(request, 'authorization')
  if (field === undefined) return undefined
  const [, scheme = '', token = ''] = /^(bearer|dpop) +([\x21-\x7e]+)$/i.exec(field) ?? []
  if (token === '')
    throw new GatewayError(
      'client_invalid',
      'The Authorization field holds no grant. Send `Bearer <grant>`, or `DPoP <grant>` with a proof; there are no client secrets here.',
    )
  return { scheme: scheme.toLowerCase() === 'dpop' ? 'dpop' : 'bearer', token }
}

/** From the raw list: Node joins or drops repeated fields, and then nobody knows which one was meant. */
function soleField(
  request: FastifyRequest,
  name: string,
  code: 'instruction_invalid' | 'dpop_invalid' = 'instruction_invalid',
): string | undefined {
  const values = valuesOf(request.raw.rawHeaders, name)
  if (values.length > 1) throw new GatewayError(code, `The field ${name} is sent ${values.length} times. Send it once.`)
  return values[0]
}

function assertionOf(type: string | undefined, token: string | undefined): ClientEvidence['assertion'] {
  if (type === undefined && token === undefined) return undefined
  if (type === undefined || token === undefined)
    throw new GatewayError('instruction_invalid', 'client_assertion and client_assertion_type go together.')
  if (!Object.hasOwn(ASSERTION_TYPES, type))
    throw new GatewayError(
      'client_invalid',
      `This client_assertion_type is not read here. Allowed are ${Object.keys(ASSERTION_TYPES).join(' and ')}.`,
    )
  return { type: ASSERTION_TYPES[type as keyof typeof ASSERTION_TYPES], token }
}

function text(value: Form[string]): string | undefined {
  return typeof value === 'string' ? value : undefined
}
