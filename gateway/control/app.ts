/** One listener of the control door before it has routes: bounds against slow and large requests, ids of our own, how it describes itself. */
import type { ServerOptions } from 'node:https'
import Fastify, { type FastifyInstance } from 'fastify'
import type { Clock } from '../protocol/clock.ts'
import { uuidv7 } from '../protocol/id.ts'
import { compiledWhenAsked } from './compiled.ts'

const BODY_LIMIT_BYTES = 64 * 1024
/** A whole request must have arrived by then. Also the patience with a connection that says nothing. */
const REQUEST_TIMEOUT_MS = 10_000
const MAX_CONNECTIONS = 256

export const DESCRIPTION = {
  openapi: '3.1.0',
  info: {
    title: 'Keyless control door',
    version: '1',
    description: 'Refusals are application/problem+json with a stable code.',
  },
  components: {
    securitySchemes: { reader: { type: 'http', scheme: 'bearer', description: 'A token of audit.readers.' } },
  },
} as const

export function createApp(clock: Clock, tls: ServerOptions | undefined): FastifyInstance {
  const app = Fastify({
    ...((tls && { https: tls }) as object), // typed as another kind of instance; routes do not care which they are on
    bodyLimit: BODY_LIMIT_BYTES,
    requestTimeout: REQUEST_TIMEOUT_MS,
    connectionTimeout: 3 * REQUEST_TIMEOUT_MS,
    keepAliveTimeout: 5_000,
    forceCloseConnections: 'idle',
    return503OnClosing: false, // the hook says it in our words
    genReqId: () => uuidv7(clock.nowMs()), // never taken from a header: it becomes the id of the event
    schemaController: { compilersFactory: compiledWhenAsked() },
    ajv: {
      customOptions: {
        allErrors: true,
        coerceTypes: false,
        removeAdditional: false,
        useDefaults: false,
        verbose: true,
        allowUnionTypes: true,
      },
    },
  })
  app.server.headersTimeout = REQUEST_TIMEOUT_MS
  app.server.maxConnections = MAX_CONNECTIONS
  app.removeContentTypeParser('text/plain') // what a web form can send without asking
  return app
}
