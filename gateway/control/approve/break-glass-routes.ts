/** Emergency access, on the unix socket alone: what custodians have signed is opened, seen and closed. The signatures are the authority. */
import type { FastifyInstance } from 'fastify'
import type { BreakGlassDoor, SealedRequest } from '../../protocol/break-glass.ts'
import type { Human } from '../../protocol/grant.ts'
import { closed } from '../shapes.ts'

export interface EmergencyDoor {
  readonly human: Human
  /** Undefined: no emergency access, and no routes for it. */
  readonly breakGlass?: BreakGlassDoor | undefined
}

const text = { type: 'string' } as const
const texts = { type: 'array', items: text } as const
const seconds = { type: 'integer', description: 'epoch seconds' } as const
const part = { type: 'string', minLength: 1, maxLength: 16_384, description: 'base64url' } as const

const sealed = {
  description: 'the file that `keyless break-glass request` wrote and the custodians signed',
  ...closed({
    payload: part,
    signatures: { type: 'array', maxItems: 32, items: closed({ protected: part, signature: part }) },
  }),
}
const byId = {
  description: 'a JSON object that names what to close',
  ...closed({ id: { type: 'string', minLength: 1, maxLength: 64, description: 'id of the grant or of the request' } }),
}

const view = {
  ...{ id: text, request: text, who: text, agent: text, why: text, task: text },
  ...{ scope: texts, custodians: texts, opened_at: seconds, expires_at: seconds, uses: { type: 'integer' } },
}
const opened = closed({
  ...view,
  handle: { type: 'string', description: 'what the agent presents; shown this once' },
  logged: { type: 'boolean', description: 'false: the log could not be written, and the journal has it' },
})
const status = closed({
  open: { type: 'array', items: closed(view) },
  journalled: { type: 'integer', description: 'entries that are in the journal and not in the log yet' },
  journal_trouble: { type: ['string', 'null'], description: 'why the journal cannot be written; null: it can' },
})
const tags = ['break-glass']

export function addBreakGlassRoutes(app: FastifyInstance, { breakGlass, human }: EmergencyDoor): void {
  if (breakGlass === undefined) return
  app.get(
    '/break-glass',
    { schema: { summary: 'Emergency access that is open here', tags, response: { 200: status } } },
    async () => breakGlass.status(),
  )
  app.post<{ Body: SealedRequest }>(
    '/break-glass/open',
    { schema: { summary: 'Open what custodians have signed, once', tags, body: sealed, response: { 200: opened } } },
    async ({ body }) => breakGlass.open(body, human),
  )
  app.post<{ Body: { readonly id: string } }>(
    '/break-glass/close',
    { schema: { summary: 'End emergency access at once', tags, body: byId, response: { 204: { type: 'null' } } } },
    async ({ body }, reply) => {
      await breakGlass.close(body.id, human)
      return reply.code(204).send()
    },
  )
}
