/**
 * What upstreams verify the gateway's assertions with: metadata of an OpenID provider (OpenID Connect Discovery §4) and its keys. On both
 * listeners, for anyone.
 */
import type { FastifyInstance } from 'fastify'
import { answers } from '../shapes.ts'
import { issuerPath } from './metadata.ts'

export interface AssertionDoor {
  readonly publicUrl: string
  readonly assertions: { readonly metadata: object; jwks(): Promise<object> }
}

export function addAssertionRoutes(app: FastifyInstance, { publicUrl, assertions }: AssertionDoor): void {
  // OpenID Connect Discovery §4: the path of the issuer comes first. A proxy in front may or may not have taken it away.
  for (const path of new Set(['/assertions', `${issuerPath(publicUrl)}/assertions`])) {
    app.get(
      `${path}/.well-known/openid-configuration`,
      {
        schema: {
          summary: 'Who signs assertions about agents (OpenID Connect Discovery)',
          tags: ['assertions'],
          response: { 200: answers.assertionMetadata },
        },
      },
      async (_request, reply) => reply.header('cache-control', 'public, max-age=300').send(assertions.metadata),
    )
    app.get(
      `${path}/jwks.json`,
      { schema: { summary: 'Keys that verify assertions', tags: ['assertions'], response: { 200: answers.jwks } } },
      async (_request, reply) => reply.header('cache-control', 'public, max-age=300').send(await assertions.jwks()),
    )
  }
}
