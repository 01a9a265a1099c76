/**
 * This gateway as a witness of other logs (C2SP tlog-witness), by preference of its fellow replicas. Asks nobody who they are: a
 * checkpoint counts by the signature of its log.
 */
import type { FastifyInstance } from 'fastify'
import { MAX_BODY_BYTES } from '../../audit/witness/witness.ts'
import type { Clock } from '../../protocol/clock.ts'
import { createPace } from '../pace.ts'

export interface WitnessDoor {
  /** Undefined: witnesses nobody. */
  readonly witness: { addCheckpoint(body: Uint8Array): Promise<WitnessReply> } | undefined
  readonly clock: Clock
}

interface WitnessReply {
  readonly status: number
  readonly type: string
  readonly body: string
}

/** Checkpoints from one address: replicas show one every few seconds. */
const PACE = { n: 100, perMs: 10_000 } as const

export function addWitnessRoutes(app: FastifyInstance, { witness, clock }: WitnessDoor): void {
  if (!witness) return
  const pace = createPace({ ...PACE, clock })
  app.register(async (routes) => {
    routes.removeAllContentTypeParsers() // the specification names no type for the body
    routes.addContentTypeParser('*', { parseAs: 'buffer', bodyLimit: MAX_BODY_BYTES }, (_request, body, done) =>
      done(null, body),
    )
    const schema = { summary: 'Have a checkpoint cosigned (C2SP tlog-witness)', tags: ['log'] }
    routes.post('/witness/add-checkpoint', { schema, bodyLimit: MAX_BODY_BYTES }, async (request, reply) => {
      pace.admit(request.ip)
      const body = Buffer.isBuffer(request.body) ? request.body : Buffer.alloc(0)
      const answer = await witness.addCheckpoint(body)
      return reply.status(answer.status).type(answer.type).header('cache-control', 'no-store').send(answer.body)
    })
  })
}
