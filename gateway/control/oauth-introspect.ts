/**
 * Introspection (RFC 7662): what a grant is, for those who may know. Nobody asks anonymously and nobody asks without end, because
 * the answer would tell whoever found a token whether it is worth keeping.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Clock } from '../protocol/clock.ts'
import type { Grant, Human } from '../protocol/grant.ts'
import type { Identities, Workload } from '../protocol/identity.ts'
import { GatewayError } from '../protocol/problem.ts'
import { evidenceOf, type Prover, presentedGrant, provedKey } from './oauth-client.ts'
import type { Form } from './oauth-form.ts'
import { aboutTokenForm, FORM, oauthAnswers, REFUSALS } from './oauth-shapes.ts'
import { createPace } from './pace.ts'
import { certificateThumbprint } from './tls.ts'

/** One caller's introspections: enough for a busy resource server, hopeless for guessing. */
const INTROSPECTIONS = { n: 600, perMs: 10_000 } as const

/** Who asks about a grant: an authenticated client, a holder of a grant of its own, or the owner of the socket. */
export type Introspector = { readonly client: Workload } | { readonly holder: Grant } | { readonly human: Human }

export interface OauthGrants {
  /** RFC 7662 §2.2: `{active: false}` and nothing else for what is dead, unknown, or not for this caller to know. */
  introspect(token: string, by: Introspector): Promise<object>
  /** The living grant that is presented. @throws {GatewayError} `grant_invalid`, `grant_expired`, `grant_revoked`, … */
  holder(token: string): Promise<Grant>
}

export interface IntrospectionDoor extends Prover {
  /** `iss` of grants, prefix of every URL that clients are told, and one of the names that the TCP door goes by. */
  readonly publicUrl: string
  readonly identities: Pick<Identities, 'client' | 'proof' | 'nonce'>
  readonly grants: OauthGrants
  readonly clock: Clock
}

/** A form of RFC 7009 §2.1 or RFC 7662 §2.1 after its schema has accepted it. */
export interface AboutToken {
  readonly token: string
}

export function addIntrospectionRoute(app: FastifyInstance, door: IntrospectionDoor, human: Human | undefined): void {
  const pace = createPace({ ...INTROSPECTIONS, clock: door.clock })
  app.post<{ Body: AboutToken & Form }>(
    '/oauth/introspect',
    {
      schema: {
        summary: 'What a grant is, for those who may know (RFC 7662)',
        description:
          'Asked by an authenticated client, or by a holder (Authorization: Bearer or DPoP) about its own grants.',
        tags: ['oauth'],
        consumes: FORM,
        body: aboutTokenForm,
        response: { 200: oauthAnswers.introspected, ...REFUSALS },
      },
    },
    async (request, reply) => {
      const by = await introspectorOf(request, door, human)
      pace.admit('client' in by ? by.client.id : 'holder' in by ? by.holder.id : 'human')
      return reply.header('cache-control', 'no-store').send(await door.grants.introspect(request.body.token, by))
    },
  )
}

async function introspectorOf(
  request: FastifyRequest<{ Body: AboutToken & Form }>,
  door: IntrospectionDoor,
  human: Human | undefined,
): Promise<Introspector> {
  const held = presentedGrant(request)
  if (held === undefined) {
    const evidence = evidenceOf(request, request.body)
    await provedKey(request, '/oauth/introspect', door)
    const client = await door.identities.client(evidence)
    if (client !== undefined) return { client }
    if (human !== undefined) return { human }
    throw new GatewayError(
      'client_invalid',
      'Say who you are: a client_assertion, a TLS certificate, or a grant as Bearer.',
    )
  }
  if (request.body.client_assertion !== undefined || request.body.client_secret !== undefined)
    throw new GatewayError('instruction_invalid', 'The caller shows two ways of authentication. Use one.')
  const jkt = await provedKey(request, '/oauth/introspect', door, held.token)
  const holder = await door.grants.holder(held.token)
  // RFC 9449 §7.1: a bound grant under Bearer, or under a proof of another key, is a stolen one.
  if (holder.cnf?.jkt !== undefined && (held.scheme !== 'dpop' || jkt !== holder.cnf.jkt))
    throw new GatewayError(
      'grant_invalid',
      'The grant is bound to a key. Present it as DPoP, with a proof of that key.',
    )
  // RFC 8705 §3: bound to a certificate, it is presented over a connection that proved the same.
  const bound = holder.cnf?.['x5t#S256']
  if (bound !== undefined && bound !== certificateThumbprint(request))
    throw new GatewayError(
      'grant_invalid',
      'The grant is bound to a TLS client certificate. Present it over a connection that shows that certificate.',
    )
  return { holder }
}
