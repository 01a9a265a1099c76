/**
 * The log for outsiders, read-only, by C2SP tlog-tiles: its checkpoint and the hashes of its tree. They prove that nothing was
 * changed, and tell nothing of what happened. Entries are for those who may read the log.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { GatewayError } from '../../protocol/problem.ts'

export interface LogDoor {
  readonly publicLog: PublicLog
}

export interface PublicLog {
  /** The newest signed checkpoint; where witnesses are configured, the newest that they have cosigned. */
  checkpoint(): Promise<Buffer | undefined>
  /** Bytes of `tile/…`; undefined when there is no such tile, or not yet. */
  tile(path: string): Promise<Buffer | undefined>
}

/** A tile never changes: what is in it is hashed into every later checkpoint. */
const FOR_EVER = 'max-age=31536000, immutable'

/** @param mayRead throws when whoever asks may not read entries; undefined: they are not served here. */
export function addLogRoutes(
  app: FastifyInstance,
  { publicLog }: LogDoor,
  mayRead: ((request: FastifyRequest) => Promise<void> | void) | undefined,
): void {
  const schema = (summary: string) => ({ schema: { summary, tags: ['log'] } })
  app.get('/log/checkpoint', schema('Signed head of the log (C2SP tlog-checkpoint)'), async (_request, reply) => {
    const note = found(await publicLog.checkpoint())
    return reply.type('text/plain; charset=utf-8').header('cache-control', 'no-cache').send(note)
  })
  app.get('/log/tile/*', schema('Hashes and entries of the log (C2SP tlog-tiles)'), async (request, reply) => {
    const path = `tile/${(request.params as { '*': string })['*']}`
    const isEntries = path.startsWith('tile/entries/')
    if (isEntries) {
      if (!mayRead) throw noTile()
      await mayRead(request)
    }
    return sendTile(reply, found(await publicLog.tile(path)), isEntries)
  })
}

function sendTile(reply: FastifyReply, bytes: Buffer, isEntries: boolean): FastifyReply {
  return reply
    .type('application/octet-stream')
    .header('cache-control', `${isEntries ? 'private' : 'public'}, ${FOR_EVER}`)
    .send(bytes)
}

function found(bytes: Buffer | undefined): Buffer {
  if (bytes) return bytes
  throw noTile()
}

function noTile(): GatewayError {
  return new GatewayError(
    'route_unknown',
    'The log has no such tile, or not yet. GET /log/checkpoint says how many entries it has; entries are shown to readers of the log alone.',
  )
}
