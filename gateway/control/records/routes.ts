/**
 * The records: what happened, by who, what, where and when. On the unix socket for the owner of the gateway; over TCP for readers,
 * and there every reading is recorded before it is answered.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { type Asked, MAX_VALUE, readQuery, type TEXT_FILTERS } from '../../records/asking.ts'
import type { Reading } from '../../records/query.ts'
import type { Which } from '../../records/records.ts'
import type { Asking } from '../../records/records-thread.ts'
import type { ReaderOf } from './reader.ts'

export interface RecordsDoor {
  readonly records: Asking
  /** Name of this gateway's log. */
  readonly origin: string
  /** Before a reader is answered. @throws {GatewayError} `audit_unavailable` */
  recordReading(reading: Reading): Promise<void>
  readonly clock: Clock
}

/** One answer is one message: more is asked for page by page. */
const MAX_LIMIT = 500

const value = (description: string) => ({ type: 'string', minLength: 1, maxLength: MAX_VALUE, description }) as const

const FILTERS: Readonly<Record<(typeof TEXT_FILTERS)[number], string>> = {
  tenant: 'a tenant',
  log: 'name of a log, where several are in one index',
  human: 'who authorised it: a name, or issuer and name with a space between',
  agent: 'id of the agent that acted',
  task: 'id of a task',
  ancestor: 'a human, agent or grant anywhere in the lineage',
  grant: 'id of the grant that was used, or that it is about',
  service: 'a service, such as github',
  operation: 'an operation, such as github:issues.read, or github:*',
  host: 'a host, such as api.github.com, or *.github.com',
  status: 'a status such as 404, or a class such as 4xx',
  kind: 'a kind of entry: call, lease.issued, or grant.*',
  credential: 'a credential by its name in settings, or a cred_id',
  trace: 'a W3C trace id or traceparent',
  prompt: 'hash of a prompt: sha256: and hex or base64url',
  text: 'words that all occur in path, purpose, names, codes, policies or user agent',
}

const query = {
  type: 'object',
  additionalProperties: false,
  properties: {
    ...Object.fromEntries(Object.entries(FILTERS).map(([name, said]) => [name, value(said)])),
    effect: { type: 'string', enum: ['allow', 'deny'], description: 'allow or deny' },
    since: value('not before: a time such as 2026-11-22T10:00:00Z, or how long ago, such as 2h'),
    until: value('before: a time, likewise'),
    limit: {
      type: 'string',
      pattern: '^[1-9][0-9]{0,2}$',
      description: `a whole number, 1 to ${MAX_LIMIT}; default 50`,
    },
    after: value('"next" of the page before'),
    order: { type: 'string', enum: ['newest', 'oldest'], description: 'newest (default) or oldest' },
  },
} as const

const record = {
  type: 'object',
  additionalProperties: true,
  required: ['log', 'seq', 'ts', 'kind'],
  properties: {
    log: { type: 'string' },
    seq: { type: 'integer', description: 'number of the entry; of the decision of a call' },
    end_seq: { type: 'integer', description: 'number of the outcome of a call' },
    ts: { type: 'integer', description: 'milliseconds since the epoch' },
    kind: { type: 'string', description: 'call, or the kind of the entry' },
  },
} as const

const page = {
  description: 'One page; `next` is absent on the last. `lag`: entries that are in the log and not in the index yet',
  type: 'object',
  required: ['records', 'lag'],
  properties: {
    records: { type: 'array', items: record },
    next: { type: 'string' },
    lag: { type: 'object', properties: { entries: { type: 'integer' }, seconds: { type: 'number' } } },
  },
} as const

const told = {
  description: 'The record with its entries as the log has them, and with prove=true a C2SP tlog-proof of each',
  type: 'object',
  required: ['found', 'entries'],
  properties: {
    found: record,
    entries: { type: 'array', items: { type: 'object', additionalProperties: true } },
    proofs: { type: 'array', items: { type: 'string' } },
  },
} as const

/** @param readerOf over TCP; undefined: whoever asks is the owner of the gateway. */
export function addRecordsRoutes(app: FastifyInstance, door: RecordsDoor, readerOf: ReaderOf | undefined): void {
  const security = readerOf ? { security: [{ reader: [] }] } : {}
  app.get<{ Querystring: Asked }>(
    '/records',
    {
      schema: {
        summary: 'Find records of the log',
        tags: ['log'],
        ...security,
        querystring: query,
        response: { 200: page },
      },
    },
    async (request, reply) => {
      const address = addressOf(request)
      const reader = await readerOf?.(request)
      const asked = request.query
      if (Number(asked.limit ?? 1) > MAX_LIMIT) throw invalid(`limit: allowed is a whole number, 1 to ${MAX_LIMIT}.`)
      const { found, text } = await door.records.page(readQuery(asked, door.clock.nowMs()))
      if (reader) await door.recordReading({ reader: reader.name, address, asked: { ...asked }, found })
      return reply.header('cache-control', 'no-store').type('application/json; charset=utf-8').send(text)
    },
  )
  app.get<{ Params: { readonly id: string }; Querystring: { readonly prove?: string } }>(
    '/records/:id',
    { schema: { summary: 'One record with its entries', tags: ['log'], ...security, ...ONE, response: { 200: told } } },
    async (request, reply) => {
      const address = addressOf(request)
      const reader = await readerOf?.(request)
      const { id } = request.params
      const prove = request.query.prove === 'true'
      const found = await door.records.tell(whichOf(id, door.origin), { prove })
      if (reader) await door.recordReading({ reader: reader.name, address, asked: { id }, found: found ? 1 : 0 })
      if (!found) throw new GatewayError('route_unknown', 'The index has no such record, or not yet.')
      return reply.header('cache-control', 'no-store').send(found)
    },
  )
}

const ONE = {
  params: {
    type: 'object',
    required: ['id'],
    properties: { id: value('id of a call or instruction, the number of an entry, or log:number') },
  },
  querystring: {
    type: 'object',
    additionalProperties: false,
    properties: { prove: { type: 'string', enum: ['true', 'false'], description: 'true or false' } },
  },
} as const

/** Asked before anything is waited for: whoever hangs up takes it along, and the reading is recorded all the same. */
function addressOf({ ip }: FastifyRequest): string {
  return ip ?? 'unknown'
}

/** `42` is an entry of this gateway's log, `keyless.local/acme:42` of that one; anything else is the id of a call. */
function whichOf(id: string, origin: string): string | Which {
  const numbered = /^(?:(.+):)?(\d{1,15})$/.exec(id)
  return numbered ? { log: numbered[1] ?? origin, seq: Number(numbered[2]) } : id
}

function invalid(detail: string): GatewayError {
  return new GatewayError('instruction_invalid', detail)
}
