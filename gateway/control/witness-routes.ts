/**
 * This gateway as a witness of other logs (C2SP tlog-witness), by preference of its fellow replicas. Asks nobody who they are: a
 * checkpoint counts by the signature of its log.
 */
import type { FastifyInstance } from 'fastify'

export interface WitnessDoor {
  /** Undefined: witnesses nobody. */
  readonly witness: { addCheckpoint(body: Uint8Array): Promise<WitnessReply> } | undefined
}

interface WitnessReply {
  readonly status: number
  readonly type: string
  readonly body: string
}

/** As the witness itself: more than a checkpoint with its proof can need. */
const BODY_LIMIT_BYTES = 256 * 1024

export function addWitnessRoutes(app: FastifyInstance, { witness }: WitnessDoor): void {
  if (!witness) return
  app.register(async (routes) => {
    routes.removeAllContentTypeParsers() // the specification names no type for the body
    routes.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: BODY_LIMIT_BYTES }, (_request, body, done) =>
      done(null, body),
    )
    const schema = { summary: 'Have a checkpoint cosigned (C2SP tlog-witness)', tags: ['log'] }
    routes.post('/witness/add-checkpoint', { schema, bodyLimit: BODY_LIMIT_BYTES }, async (request, reply) => {
      const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)
      const answer = await witness.addCheckpoint(body)
      return reply.status(answer.status).type(answer.type).header('cache-control', 'no-store').send(answer.body)
    })
  })
}
