/**
 * Introspection (RFC 7662): what a grant is, for those who may know. Nobody asks anonymously and nobody asks without end, because
 * the answer would tell whoever found a token whether it is worth keeping.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Introspector } from '../grant/introspect.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Confirmation, Grant, Human } from '../protocol/grant.ts'
import type { Identities } from '../protocol/identity.ts'
import { GatewayError } from '../protocol/problem.ts'
import { evidenceOf, type Prover, presentedGrant, provedKey } from './oauth-client.ts'
import type { Form } from './oauth-form.ts'
import { aboutTokenForm, FORM, oauthAnswers, REFUSALS } from './oauth-shapes.ts'
import { createPace, type Gate } from './pace.ts'
import { certificateThumbprint } from './tls.ts'

/** One caller's introspections: enough for a busy resource server, hopeless for guessing. */
const INTROSPECTIONS = { n: 600, perMs: 10_000 } as const

export interface OauthGrants {
  /** RFC 7662 §2.2: `{active: false}` and nothing else for what is dead, unknown, or not for this caller to know. */
  introspect(token: string, by: Introspector): Promise<object>
  /**
   * The living grant that is presented, with the keys that were proved along.
   * @throws {GatewayError} `grant_invalid`, also for one that is bound to another key, `grant_expired`, `grant_revoked`, …
   */
  holder(token: string, proof?: Confirmation): Promise<Grant>
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

export function addIntrospectionRoute(
  app: FastifyInstance,
  door: IntrospectionDoor,
  gate: Gate,
  human: Human | undefined,
): void {
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
    (request, reply) =>
      gate(async () => {
        const by = await introspectorOf(request, door, human)
        pace.admit('client' in by ? by.client.id : 'holder' in by ? by.holder.id : 'human')
        return reply.header('cache-control', 'no-store').send(await door.grants.introspect(request.body.token, by))
      }),
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
  const leaf = certificateThumbprint(request)
  // RFC 9449 §7.1: under Bearer no key counts as proved, so a bound grant is refused there, whatever comes along.
  const proof = {
    ...(jkt !== undefined && held.scheme === 'dpop' && { jkt }),
    ...(leaf !== undefined && { 'x5t#S256': leaf }),
  }
  return { holder: await door.grants.holder(held.token, proof) }
}
