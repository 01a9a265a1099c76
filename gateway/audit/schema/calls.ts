/** Members of the entries of calls, and of those of the credentials that they use. */
import { z } from 'zod'
import { count, epoch, keyed, text } from './members.ts'

export const lease = {
  grant: text('Grant that it is for.'),
  provider: text('Kind of issuer; `captured`: an upstream answered with it.'),
  credential: text('Name in the settings.'),
  service: text('Service that it is for.'),
}
export const held = {
  cred_id: text('HMAC of the credential: equal ones can be found, none can be guessed.'),
  ephemeral: z.boolean().describe('False: a standing key, which only its owner can change.'),
  expires: epoch('When it is used no longer.'),
}

export const target = z
  .strictObject({
    scheme: z.enum(['http', 'https']),
    host: z.string(),
    port: z.number(),
    method: z.string(),
    path: text('Without the query: what policy decided on.'),
    query_hash: keyed('Of tenant and query.').optional(),
    service: text('Absent: refused before it was found out.').optional(),
    operation: text('The same.').optional(),
  })
  .meta({ id: 'target', description: 'Where the call goes.' })

export const cred = z
  .strictObject({
    provider: lease.provider,
    credential: lease.credential,
    cred_id: held.cred_id,
    ephemeral: held.ephemeral,
    expires: z.number().nullable().describe('When the lease ends, epoch seconds; null: never.'),
    cache: z
      .enum(['hit', 'miss'])
      .describe('`miss`: this call waited for the issuer, and `lease.issued` is before it.'),
  })
  .meta({ id: 'cred', description: 'The credential that was used. Absent: the call got none.' })

export const outcome = z
  .strictObject({
    status: z
      .number()
      .describe('Of the upstream, or of the refusal; 499: the agent left before there was any.')
      .optional(),
    error: z.string().nullable().describe('Code when it was refused or broke off; null: it ended as it should.'),
    cause: text('As in `decision`.').optional(),
    dur_ms: z.number().describe('Milliseconds from the head of the request to the last byte of the answer.'),
    address: text('That was dialled.').optional(),
    bytes_out: count('Bytes of body that went to the upstream.').optional(),
    bytes_in: count('Bytes of body that went to the agent.').optional(),
    req_body_hash: keyed(
      'Of tenant and the body that went to the upstream; with an `error`, of what had gone by then.',
    ).optional(),
    resp_body_hash: keyed(
      'Of tenant and the body as the upstream sent it; with an `error`, of what had come by then.',
    ).optional(),
    scrubbed: count('Credentials that were overwritten in the answer.').optional(),
  })
  .meta({ id: 'outcome', description: 'What became of the call.' })
