/** Settings of `workload_identity`: a token endpoint that takes tokens of workloads, in whatever shape its vendor chose. */
import { z } from 'zod'
import { textTemplate } from './claims-template.ts'
import { addressRange, endpointUrl, refuseCleartext } from './endpoint-schema.ts'
import { scope } from './oauth/client-schema.ts'
import { ownAssertion } from './oauth/token-source.ts'
import { credentialTerms } from './terms.ts'

const pointer = z.string().regex(/^(?:\/[^/]+)+$/, { error: 'is not a JSON pointer such as /access_token' })

/** What the provider itself says. */
const OWN_PARAMETERS = ['grant_type', 'assertion', 'subject_token', 'subject_token_type', 'scope']
/** A secret never stands in settings, and the shape of a request is not for settings to change. */
const OWN_FIELDS = /^(?:authorization|proxy-.*|cookie|host|content-.*|transfer-encoding|connection|dpop)$/

const fields = z
  .record(
    z.string().regex(/^[a-z][a-z0-9-]*$/, { error: 'is not a header name in lower case' }),
    z.string().regex(/^[\x20-\x7e]+$/),
  )
  .refine((all) => !Object.keys(all).some((name) => OWN_FIELDS.test(name)), {
    error: 'names a field that is not for settings: authorization, cookie, host, content-*',
  })
  .default({})

export const workloadIdentitySchema = z
  .strictObject({
    provider: z.literal('workload_identity'),
    ...credentialTerms,
    token_url: endpointUrl,
    /** Ranges outside the public Internet that `token_url` may resolve to. Default: none. */
    addresses: z.array(addressRange).default([]),
    /** How the request is written. */
    format: z.enum(['form', 'json']).default('form'),
    /** RFC 8693, or RFC 7523 §2.1. */
    grant: z.enum(['token_exchange', 'jwt_bearer']).default('token_exchange'),
    /** What is presented. Default: an assertion about the human and who acts for it. */
    token: ownAssertion,
    /** With `token_exchange`: what kind that is. */
    token_type: z.enum(['jwt', 'id_token', 'access_token']).default('jwt'),
    scope: scope.optional(),
    /** Further members of the request: ids of rule, organisation, service account. */
    parameters: z
      .record(z.string().min(1), textTemplate)
      .refine((all) => !OWN_PARAMETERS.some((name) => name in all), {
        error: `must not hold ${OWN_PARAMETERS.join(', ')}: those have settings of their own`,
      })
      .default({}),
    /** Further fields of the token request. */
    headers: fields,
    /** Where the answer has what. */
    answer: z
      .strictObject({ token: pointer.default('/access_token'), expires_in: pointer.default('/expires_in') })
      .default({ token: '/access_token', expires_in: '/expires_in' }),
    /** Name of the header slot of the service that takes such tokens, if that is not its first slot. */
    slot: z.string().min(1).optional(),
    /** Fields that go along with the token in every request to the service. */
    request_headers: fields,
  })
  .superRefine(refuseCleartext(['token_url']))

export type WorkloadIdentityConfig = z.output<typeof workloadIdentitySchema>
