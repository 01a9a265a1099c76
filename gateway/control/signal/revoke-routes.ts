/** End access, and let it in again: on the unix socket alone, by whoever may open it. */
import type { FastifyInstance } from 'fastify'
import type { BlockView, LiftBody, RevokeBody, RevokedView, TargetBody } from '../../protocol/control-revocation.ts'
import type { Human } from '../../protocol/grant.ts'
import type { Block, Revocations, RevocationTarget } from '../../protocol/revocation.ts'
import { closed } from '../shapes.ts'

export interface RevokeDoor {
  readonly human: Human
  readonly revocations: Revocations
}

const text = (maxLength: number, description: string) =>
  ({ type: 'string', minLength: 1, maxLength, description }) as const
const count = { type: 'integer' } as const
const until = {
  type: ['integer', 'null'],
  minimum: 1,
  description: 'epoch seconds, or null for: until it is lifted',
} as const

const target = {
  description: 'an object with exactly one of grant, task, agent, human, service, credential, policy_set, everything',
  ...closed(
    {
      grant: text(16_384, 'a grant: its id, handle or token'),
      task: text(100, 'id of a task'),
      agent: text(500, 'id of an agent'),
      human: closed({ iss: text(500, 'issuer of the human'), sub: text(500, 'the human at that issuer') }),
      service: text(200, 'name of a service'),
      credential: text(200, 'name of a credential in the settings'),
      policy_set: { ...text(100, 'digest of policies: sha256:…'), pattern: '^sha256:' },
      everything: { const: true, description: 'true' },
    },
    [],
  ),
  minProperties: 1,
  maxProperties: 1,
}

const revokeBody = {
  description: 'a JSON object',
  ...closed({ target, reason: text(200, 'why, in 1 to 200 characters'), until }, ['target', 'reason']),
}
const liftBody = { description: 'a JSON object', ...closed({ target }) }

const answers = {
  revoked: {
    description: 'What ended, and until when what comes anew is refused',
    ...closed({ id: { type: 'string' }, tasks: count, grants: count, leases: count, until }, [
      'id',
      'tasks',
      'grants',
      'leases',
    ]),
  },
  blocks: {
    description: 'What is refused until further notice',
    ...closed({
      blocks: {
        type: 'array',
        items: closed({ id: { type: 'string' }, target, reason: { type: 'string' }, until, since: count }),
      },
    }),
  },
} as const

export function addRevokeRoutes(app: FastifyInstance, { revocations, human }: RevokeDoor): void {
  app.post<{ Body: RevokeBody }>(
    '/revocations',
    {
      schema: {
        summary: 'End what lives under a target everywhere, and block what comes anew',
        tags: ['revocations'],
        body: revokeBody,
        response: { 200: answers.revoked },
      },
    },
    async ({ body: { target: asked, reason, until: untilS } }): Promise<RevokedView> => {
      const order = { target: targetOf(asked), reason, by: { human } }
      const { untilS: blocked, ...ended } = await revocations.order(untilS === undefined ? order : { ...order, untilS })
      return blocked === undefined ? ended : { ...ended, until: blocked }
    },
  )
  app.post<{ Body: LiftBody }>(
    '/revocations/lift',
    {
      schema: {
        summary: 'Take a block back; what was ended stays ended',
        tags: ['revocations'],
        body: liftBody,
        response: { 204: { type: 'null', description: 'It is lifted.' } },
      },
    },
    async ({ body }, reply) => {
      await revocations.lift(targetOf(body.target), { human })
      return reply.status(204).send()
    },
  )
  app.get(
    '/revocations',
    { schema: { summary: 'What is blocked', tags: ['revocations'], response: { 200: answers.blocks } } },
    async () => ({ blocks: revocations.blocks().map(viewOf) }),
  )
}

function targetOf({ policy_set: policySet, ...rest }: TargetBody): RevocationTarget {
  return (policySet === undefined ? rest : { policySet }) as RevocationTarget // exactly one, as the schema says
}

function viewOf({ id, target: named, reason, untilS, sinceS }: Block): BlockView {
  const shown = 'policySet' in named ? { policy_set: named.policySet } : named
  return { id, target: shown, reason, until: untilS, since: sinceS }
}
