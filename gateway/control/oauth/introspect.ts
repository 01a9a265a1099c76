/**
 * Introspection (RFC 7662): what a grant is, for those who may know. Nobody asks anonymously and nobody asks without end, because
 * the answer would tell whoever found a token whether it is worth keeping.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Introspector } from '../../grant/introspect.ts'
import type { InstructionRooms } from '../../instruction.ts'
import type { Clock } from '../../protocol/clock.ts'
import type { Human } from '../../protocol/grant.ts'
import type { Identities } from '../../protocol/identity.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { createPace, type Gate } from '../pace.ts'
import { orRecord } from '../refused.ts'
import { type HolderDoor, holderOf } from '../tasks/holder.ts'
import { evidenceOf } from './client.ts'
import type { Form } from './form.ts'
import { aboutTokenForm, FORM, oauthAnswers, REFUSALS } from './shapes.ts'

/** One caller's introspections: enough for a busy resource server, hopeless for guessing. */
const INTROSPECTIONS = { n: 600, perMs: 10_000 } as const

export interface OauthGrants {
  /** RFC 7662 §2.2: `{active: false}` and nothing else for what is dead, unknown, or not for this caller to know. */
  introspect(token: string, by: Introspector): Promise<object>
}

export interface IntrospectionDoor extends HolderDoor {
  /** `iss` of grants, prefix of every URL that clients are told, and one of the names that the TCP door goes by. */
  readonly publicUrl: string
  readonly identities: Pick<Identities, 'client' | 'proof' | 'nonce'>
  readonly grants: OauthGrants & HolderDoor['grants']
  readonly clock: Clock
  readonly tenant: string
  readonly rooms: Pick<InstructionRooms, 'audit'>
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
        const bare = { kind: 'grant.introspect', id: request.id, tenant: door.tenant, by: { client: {} } } as const
        const by = await orRecord(bare, door.rooms, () => introspectorOf(request, door, human))
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
  const { client_assertion: assertion, client_secret: secret } = request.body
  if (request.headers.authorization !== undefined && (assertion ?? secret) !== undefined)
    throw new GatewayError('instruction_invalid', 'The caller shows two ways of authentication. Use one.')
  const holder = await holderOf(request, door)
  if (holder !== undefined) return { holder }
  const client = await door.identities.client(evidenceOf(request, request.body))
  if (client !== undefined) return { client }
  if (human !== undefined) return { human }
  throw new GatewayError(
    'client_invalid',
    'Say who you are: a client_assertion, a TLS certificate, or a grant as Bearer.',
  )
}
