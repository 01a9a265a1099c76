/** JSON Schemas of the routes of signals and webhooks. `description` is what a refusal tells as the allowed value. */
import { closed } from '../shapes.ts'

const text = { type: 'string' } as const
const count = { type: 'integer' } as const
const streamId = { type: 'string', minLength: 1, maxLength: 200, description: 'the id of a stream' } as const
const jti = { type: 'string', minLength: 1, maxLength: 255, description: 'a jti' } as const

export function streamQuery(isRequired: boolean): object {
  return { description: 'a query', ...closed({ stream_id: streamId }, isRequired ? ['stream_id'] : []) }
}

/** Members that are not known are passed over: receivers send what later versions of the specifications have. */
const open = (properties: object, required: readonly string[] = []) => ({ type: 'object', properties, required })

export const verificationBody = {
  description: 'a JSON object',
  ...open({ stream_id: streamId, state: { type: 'string', maxLength: 1024, description: 'at most 1024 characters' } }, [
    'stream_id',
  ]),
}

export const pollBody = {
  description: 'a JSON object',
  ...open({
    maxEvents: { type: 'integer', minimum: 0, description: 'a whole number, 0 or more' },
    returnImmediately: { type: 'boolean', description: 'true or false' },
    ack: { type: 'array', maxItems: 1000, items: jti, description: 'an array of at most 1000 jti' },
    setErrs: {
      type: 'object',
      maxProperties: 1000,
      additionalProperties: open(
        { err: { type: 'string', maxLength: 200 }, description: { type: 'string', maxLength: 2000 } },
        ['err'],
      ),
      description: 'an object of jti and error',
    },
  }),
}

const letter = { id: text, kind: text, seq: count, at: text, attempts: count, reason: text }

const webhookView = {
  name: text,
  format: text,
  to: text,
  waiting: count,
  failure: text,
  dead: { type: 'array', items: closed(letter, ['id', 'kind', 'seq', 'at', 'attempts']) },
  dead_count: count,
}

export const retryBody = {
  description: 'a JSON object, or no body',
  type: ['object', 'null'],
  additionalProperties: false,
  properties: {
    id: { type: 'string', pattern: '^msg_[A-Za-z0-9_-]{1,64}$', description: 'the id of a message: msg_…' },
  },
} as const

export const signalAnswers = {
  status: { description: 'SSF 1.0 stream status', ...closed({ stream_id: text, status: text }) },
  polled: {
    description: 'RFC 8936 §2.3',
    type: 'object',
    properties: { sets: { type: 'object', additionalProperties: text }, moreAvailable: { type: 'boolean' } },
    required: ['sets'],
  },
  webhooks: {
    description: 'Who is told what, and what could not be delivered',
    ...closed({
      webhooks: {
        type: 'array',
        items: closed(webhookView, ['name', 'format', 'to', 'waiting', 'dead', 'dead_count']),
      },
    }),
  },
  retried: { description: 'How many messages wait again', ...closed({ retried: count }) },
  tested: {
    description: 'What the receiver answered',
    ...closed({ taken: { type: 'boolean' }, reason: text }, ['taken']),
  },
} as const
