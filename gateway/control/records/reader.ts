/**
 * Who may read the log over TCP: readers named in `audit.readers`, each by a bearer token. The gateway holds only digests, and
 * comparing takes as long for a wrong token as for a right one.
 */
import { hash, timingSafeEqual } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { valuesOf } from '../../protocol/raw-headers.ts'
import { createPace } from '../pace.ts'

export interface Reader {
  /** As in `audit.readers`. */
  readonly name: string
}

/** @throws {GatewayError} `client_invalid` (401), `too_many_requests`. */
export type ReaderOf = (request: FastifyRequest) => Promise<Reader>

/** Questions of one reader, and attempts from one address. */
const PACE = { n: 120, perMs: 10_000 } as const
const ATTEMPTS = { n: 20, perMs: 10_000 } as const

const WANTED = 'The log is shown to its readers: send "Authorization: Bearer" and a token of audit.readers.'

/** @param readers name → SHA-256 of the token. @param wanted what is said to everybody else. */
export function createReaders(readers: ReadonlyMap<string, Buffer>, clock: Clock, wanted: string = WANTED): ReaderOf {
  const pace = createPace({ ...PACE, clock })
  const attempts = createPace({ ...ATTEMPTS, clock })
  return async (request) => {
    const [field, ...more] = valuesOf(request.raw.rawHeaders, 'authorization')
    const token = more.length === 0 ? /^bearer +([A-Za-z0-9._~+/-]+=*)$/i.exec(field ?? '')?.[1] : undefined
    const name = token === undefined ? undefined : nameOf(readers, token)
    if (name === undefined) {
      attempts.admit(request.ip)
      throw new GatewayError('client_invalid', wanted)
    }
    pace.admit(name)
    return { name }
  }
}

/** Every reader is compared, also after one was found. */
function nameOf(readers: ReadonlyMap<string, Buffer>, token: string): string | undefined {
  const shown = hash('sha256', token, 'buffer')
  return [...readers].filter(([, digest]) => timingSafeEqual(digest, shown)).at(-1)?.[0]
}
