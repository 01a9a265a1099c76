/** A token request as the instruction `grant.request`: RFC 8693, RFC 9396 and the parameters of our own (docs/oauth.md). */
import type { Preset } from '../../protocol/grant.ts'
import type { TokenType } from '../../protocol/identity.ts'
import type { GrantRequest, Instruction } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { parseStrictJson } from '../../protocol/strict-json.ts'

type Requested = Extract<Instruction, { kind: 'grant.request' }>

/** The form of `POST /oauth/token` after its schema has accepted it. */
export interface TokenForm {
  readonly grant_type: string
  readonly scope?: string
  readonly authorization_details?: string
  readonly resource?: readonly string[]
  readonly audience?: readonly string[]
  readonly requested_token_type?: string
  readonly subject_token?: string
  readonly subject_token_type?: string
  readonly actor_token?: string
  readonly actor_token_type?: string
  readonly actor_proof?: string
  readonly requested_actor?: string
  readonly dpop_jkt?: string
  readonly tls_client_certificate_bound_access_tokens?: 'true' | 'false'
  readonly purpose?: string
  readonly plan?: string
  readonly preset?: Preset
  readonly requested_expires_in?: string
  readonly trace?: string
  readonly step?: string
  readonly delegable?: 'true' | 'false'
  readonly max_depth?: string
  readonly allow_narrowing?: 'true' | 'false'
}

export const GRANT_TYPES = {
  client_credentials: 'client_credentials',
  'urn:ietf:params:oauth:grant-type:token-exchange': 'token-exchange',
} as const

const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'

/** RFC 8693 §3, and ours for what has no URN there. */
export const TOKEN_TYPES: Readonly<Record<string, TokenType>> = {
  [ACCESS_TOKEN]: 'access_token',
  'urn:ietf:params:oauth:token-type:id_token': 'id_token',
  'urn:ietf:params:oauth:token-type:jwt': 'jwt',
  'urn:keyless:token-type:jwt-svid': 'jwt-svid',
  'urn:keyless:token-type:aws-iam': 'aws-iam',
  'urn:keyless:token-type:aat-chain': 'aat-chain',
}

/** A grant is an access token that happens to be a JWT; both names of it may be asked for. */
const REQUESTABLE: ReadonlySet<string> = new Set([ACCESS_TOKEN, 'urn:ietf:params:oauth:token-type:jwt'])

/** Parameters that mean something in an exchange alone. Ignored elsewhere, they would silently change whose grant it is. */
const OF_EXCHANGE = [
  'subject_token',
  'subject_token_type',
  'actor_token',
  'actor_token_type',
  'actor_proof',
  'requested_actor',
  'requested_token_type',
] as const

/** @throws {GatewayError} `grant_type_unsupported` */
export function grantTypeOf(form: TokenForm): Requested['grantType'] {
  const { grant_type: type } = form
  if (Object.hasOwn(GRANT_TYPES, type)) return GRANT_TYPES[type as keyof typeof GRANT_TYPES]
  throw new GatewayError(
    'grant_type_unsupported',
    `This grant_type is not offered. Allowed are ${Object.keys(GRANT_TYPES).join(' and ')}.`,
  )
}

/**
 * What the form says of subject, actor and authority.
 * @param o.jkt thumbprint of the key that the request itself proved. @param o.issuer the only resource and audience there is.
 * @throws {GatewayError} `instruction_invalid`, `invalid_target`, `invalid_details`
 */
export function readTokenForm(
  form: TokenForm,
  o: { readonly jkt: string | undefined; readonly issuer: string },
): Pick<Requested, 'subject' | 'actor' | 'requestedActor' | 'attestation' | 'purpose' | 'plan' | 'request'> {
  checkTarget(form, o.issuer)
  const isExchange = grantTypeOf(form) === 'token-exchange'
  const foreign = isExchange ? undefined : OF_EXCHANGE.find((name) => form[name] !== undefined)
  if (foreign !== undefined)
    throw invalid(`${foreign} belongs to a token exchange, and grant_type says something else.`)
  if (isExchange && form.subject_token === undefined)
    throw invalid('subject_token: got nothing, needed is the token on whose behalf the grant is asked for.')
  if (form.requested_token_type !== undefined && !REQUESTABLE.has(form.requested_token_type))
    throw invalid(`This requested_token_type is not issued here. Leave it out, or ask for ${ACCESS_TOKEN}.`)
  checkBinding(form, isExchange, o.jkt)
  const subject = presented('subject_token', form.subject_token, form.subject_token_type)
  const actor = presented('actor_token', form.actor_token, form.actor_token_type)
  return {
    ...(subject && { subject }),
    ...(actor && { actor }),
    ...(form.requested_actor !== undefined && { requestedActor: form.requested_actor }),
    ...(form.actor_proof !== undefined && { attestation: form.actor_proof }),
    ...(form.purpose !== undefined && { purpose: form.purpose }),
    ...(form.plan !== undefined && { plan: form.plan.split(' ') }),
    request: grantRequestOf(form),
  }
}

function grantRequestOf(form: TokenForm): GrantRequest {
  return {
    ...(form.scope !== undefined && { scope: form.scope }),
    ...(form.authorization_details !== undefined && { details: detailsOf(form.authorization_details) }),
    ...(form.requested_expires_in !== undefined && { ttlS: Number(form.requested_expires_in) }),
    ...(form.allow_narrowing !== undefined && { allowNarrowing: form.allow_narrowing === 'true' }),
    ...(form.preset !== undefined && { preset: form.preset }),
    ...(form.trace !== undefined && { trace: form.trace }),
    ...(form.delegable !== undefined && { delegable: form.delegable === 'true' }),
    ...(form.max_depth !== undefined && { maxDepth: Number(form.max_depth) }),
    ...(form.step !== undefined && { step: form.step }),
    ...(form.dpop_jkt !== undefined && { cnf: { jkt: form.dpop_jkt } }),
    ...(form.tls_client_certificate_bound_access_tokens === 'true' && { isCertificateBound: true }),
  }
}

/**
 * RFC 9449 §5: a grant is bound to the key proved in its request. In an exchange `dpop_jkt` may name another one: the parent
 * proves its own key and gives the child's. Naming a key needs no proof, because it can only narrow who may use the grant.
 */
function checkBinding({ dpop_jkt: named }: TokenForm, isExchange: boolean, proved: string | undefined): void {
  if (named === undefined || proved === undefined || named === proved || isExchange) return
  throw invalid('dpop_jkt names another key than the DPoP proof. Leave it out: the grant is bound to the proved key.')
}

function detailsOf(json: string): unknown {
  try {
    return parseStrictJson(json)
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause
    throw new GatewayError('invalid_details', 'authorization_details is not JSON that can be read in one way only.', {
      cause,
    })
  }
}

/** Grants are for this gateway; where they lead to is said by `locations` in authorization_details. */
function checkTarget({ resource = [], audience = [] }: TokenForm, issuer: string): void {
  if ([...resource, ...audience].every((target) => target === issuer || target === `${issuer}/`)) return
  throw new GatewayError(
    'invalid_target',
    `Grants are for this gateway: the only resource and audience is ${issuer}. Name upstream APIs by scope or authorization_details.`,
  )
}

function presented(name: string, token: string | undefined, type: string | undefined): Requested['subject'] {
  if (token === undefined) {
    if (type === undefined) return undefined
    throw invalid(`${name}_type is given without ${name}.`)
  }
  const known = type !== undefined && Object.hasOwn(TOKEN_TYPES, type) ? TOKEN_TYPES[type] : undefined
  if (known !== undefined) return { token, type: known }
  const got = type === undefined ? 'nothing' : 'a type that is not read here'
  throw invalid(`${name}_type: got ${got}, allowed are ${Object.keys(TOKEN_TYPES).join(', ')}.`)
}

function invalid(detail: string): GatewayError {
  return new GatewayError('instruction_invalid', detail)
}
