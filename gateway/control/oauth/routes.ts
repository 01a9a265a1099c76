/**
 * The authorization server's endpoints: token (RFC 6749, RFC 8693), revocation (RFC 7009), introspection (RFC 7662) and
 * metadata (RFC 8414). On both listeners. Grants are made and ended by `serveInstruction` alone, so every refusal is in the log.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { TlsFiles } from '../../door-tls.ts'
import { type InstructionRooms, serveInstruction } from '../../instruction.ts'
import type { Human } from '../../protocol/grant.ts'
import type { Instruction } from '../../protocol/instruction.ts'
import { GatewayError, type ProblemCode } from '../../protocol/problem.ts'
import { createGate, type Gate } from '../pace.ts'
import { orRecord, recordThrown, recordUnread } from '../refused.ts'
import { tokenAnswer } from './answer.ts'
import { evidenceOf, provedKey } from './client.ts'
import { oauthRefusalOf, writeOauthError } from './error.ts'
import { type Form, takeForms } from './form.ts'
import { type AboutToken, addIntrospectionRoute, type IntrospectionDoor } from './introspect.ts'
import { issuerPath, metadataOf, WELL_KNOWN } from './metadata.ts'
import { grantTypeOf, readTokenForm, type TokenForm } from './request.ts'
import { aboutTokenForm, FORM, oauthAnswers, REFUSALS, tokenForm } from './shapes.ts'

/** Requests of all callers together, between the end of the body and the end of the answer. */
const MAX_UNDER_WAY = 128

export interface OauthDoor extends IntrospectionDoor {
  readonly tenant: string
  readonly rooms: InstructionRooms
  /** Some issuer of AAT chains is trusted. Default: none. */
  readonly takesChains?: boolean
  /** TLS on the TCP listener. Default: plain HTTP. */
  readonly tls?: TlsFiles
  /** Told of every unexpected error, with the id that the caller was given. Default: nobody. */
  report?(cause: unknown, id: string): void
}

/** @param human whoever can open this listener is this human: the owner of the socket; undefined over TCP. */
export function addOauthRoutes(app: FastifyInstance, door: OauthDoor, human: Human | undefined): void {
  addMetadata(app, door)
  void app.register(async (oauth) => {
    takeForms(oauth, (request, refusal) => recordUnread(request, refusal, door))
    const gate = createGate(MAX_UNDER_WAY)
    oauth.addHook('onRequest', async ({ raw }) => {
      if (raw.url?.includes('?'))
        throw new GatewayError('instruction_invalid', 'Parameters are taken from the body alone, never from the URL.')
    })
    oauth.setErrorHandler<Error>(async (error, request, reply) => {
      const refusal = await recordThrown(request, { error, refusal: oauthRefusalOf(error) }, door)
      if (refusal.code === 'too_many_requests') door.rooms.audit.turnedAway?.('busy')
      if (refusal.code === 'internal') door.report?.(error, request.id)
      writeOauthError(request, reply, refusal, { issuer: door.publicUrl, nonce: () => door.identities.nonce() })
    })
    addTokenRoute(oauth, door, gate)
    addRevocationRoute(oauth, door, gate, human)
    addIntrospectionRoute(oauth, door, gate, human)
    refuseOtherMethods(oauth)
  })
}

function addMetadata(app: FastifyInstance, door: OauthDoor): void {
  const { publicUrl, tls, takesChains = false } = door
  const metadata = metadataOf(publicUrl, { hasTls: tls !== undefined, takesChains })
  for (const path of new Set([WELL_KNOWN, WELL_KNOWN + issuerPath(publicUrl)])) {
    app.get(
      path,
      {
        schema: {
          summary: 'Authorization server metadata (RFC 8414)',
          tags: ['oauth'],
          response: { 200: oauthAnswers.metadata },
        },
      },
      async (_request, reply) => reply.header('cache-control', 'public, max-age=300').send(metadata),
    )
  }
}

function addTokenRoute(app: FastifyInstance, door: OauthDoor, gate: Gate): void {
  app.post<{ Body: TokenForm & Form }>(
    '/oauth/token',
    {
      schema: {
        summary: 'Ask for a grant: client credentials, or token exchange',
        description:
          'Clients authenticate by client_assertion or TLS certificate, and may bind the grant to a key by DPoP.',
        tags: ['oauth'],
        consumes: FORM,
        body: tokenForm,
        response: { 200: oauthAnswers.token, ...REFUSALS },
      },
    },
    (request, reply) =>
      gate(async () => {
        const issued = await serveInstruction(await requestedOf(request, door), door.rooms)
        if (issued === null) throw new TypeError('a token request issues a grant')
        if (request.headers.dpop !== undefined) void reply.header('dpop-nonce', door.identities.nonce())
        return reply.header('cache-control', 'no-store').send(tokenAnswer(issued, door.clock.nowMs() / 1000))
      }),
  )
}

function requestedOf(request: FastifyRequest<{ Body: TokenForm & Form }>, door: OauthDoor): Promise<Instruction> {
  const { id, body: form } = request
  const bare = {
    kind: 'grant.request',
    id,
    tenant: door.tenant,
    grantType: grantTypeOf(form),
    client: { ...(typeof form.client_id === 'string' && { clientId: form.client_id }) },
    request: {},
  } as const
  return orRecord(bare, door.rooms, async () => {
    const client = evidenceOf(request, form)
    const jkt = await provedKey(request, '/oauth/token', door)
    const asked = readTokenForm(form, { jkt, issuer: door.publicUrl })
    return { ...bare, client, ...(jkt !== undefined && { jkt }), ...asked }
  })
}

/** RFC 7009 §2.2: what is dead or unknown is as good as revoked, and a client must not learn which it was. */
const GONE: ReadonlySet<ProblemCode> = new Set(['grant_missing', 'grant_invalid', 'grant_expired', 'grant_revoked'])

function addRevocationRoute(app: FastifyInstance, door: OauthDoor, gate: Gate, human: Human | undefined): void {
  app.post<{ Body: AboutToken & Form }>(
    '/oauth/revoke',
    {
      schema: {
        summary: 'End a grant and everything derived from it (RFC 7009)',
        tags: ['oauth'],
        consumes: FORM,
        body: aboutTokenForm,
        response: { 200: oauthAnswers.revoked, ...REFUSALS },
      },
    },
    (request, reply) =>
      gate(async () => {
        try {
          await serveInstruction(await revocationOf(request, door, human), door.rooms)
        } catch (cause) {
          if (!(cause instanceof GatewayError && GONE.has(cause.code))) throw cause
        }
        return reply.header('cache-control', 'no-store').send()
      }),
  )
}

function revocationOf(
  request: FastifyRequest<{ Body: AboutToken & Form }>,
  door: OauthDoor,
  human: Human | undefined,
): Promise<Instruction> {
  const { id, body: form } = request
  const bare = { kind: 'grant.revoke', id, tenant: door.tenant, token: form.token, by: { client: {} } } as const
  return orRecord(bare, door.rooms, async () => {
    const client = evidenceOf(request, form)
    const jkt = await provedKey(request, '/oauth/revoke', door)
    if (human !== undefined && Object.keys(client).length === 0) return { ...bare, by: { human } }
    return { ...bare, by: { client, ...(jkt !== undefined && { jkt }) } }
  })
}

/** RFC 6749 §3.2: "The client MUST use the HTTP "POST" method". */
function refuseOtherMethods(app: FastifyInstance): void {
  for (const url of ['/oauth/token', '/oauth/revoke', '/oauth/introspect']) {
    app.route({
      method: ['GET', 'PUT', 'PATCH', 'DELETE'],
      url,
      schema: { hide: true },
      handler: async () => {
        throw new GatewayError('method_refused', 'The OAuth endpoints take POST with a form.')
      },
    })
  }
}
