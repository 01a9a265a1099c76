/**
 * Reports of leaked credentials: by whoever may open the socket, by scanners with a token of their own, and by GitHub, which signs. What is
 * reported is a credential: it goes into no entry, no answer and no log line.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Clock } from '../../protocol/clock.ts'
import type { FeedbackView, LeakReportView } from '../../protocol/control-leaks.ts'
import type { LeakReport, LeakVerdict } from '../../protocol/leak.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { valuesOf } from '../../protocol/raw-headers.ts'
import { parseStrictJson } from '../../protocol/strict-json.ts'
import { createGate, createPace } from '../pace.ts'
import { createReaders } from '../records/reader.ts'

export interface LeakDoor {
  readonly leaks: {
    /** Name in the settings → SHA-256 of the token. */
    readonly reporters: ReadonlyMap<string, Buffer>
    /** Undefined: nothing of GitHub is taken. */
    readonly isFromGithub: ((body: Buffer, keyId: string, signature: string) => Promise<boolean>) | undefined
    /** One verdict for each report, in their order. @throws {GatewayError} when one of them could not be acted on. */
    take(reports: readonly LeakReport[], from: string): Promise<readonly LeakVerdict[]>
    /** SHA-256 of a token, hex: how answers name it. */
    digest(token: string): string
  }
  readonly clock: Clock
}

const BODY_LIMIT_BYTES = 1024 * 1024
const MAX_REPORTS = 1000
const MAX_TOKEN = 16_384
/** Of GitHub's messages, and of reports that are worked on at once. */
const PACE = { n: 60, perMs: 10_000 } as const
const AT_ONCE = 4

const WANTED =
  'Leaks are reported by scanners of the settings: send "Authorization: Bearer" and a token of leaks.reporters. GitHub signs what it sends, where settings have leaks.github.'

/** @param isLocal on the unix socket: whoever may open it may report. */
export function addLeakRoutes(app: FastifyInstance, { leaks, clock }: LeakDoor, isLocal: boolean): void {
  if (!isLocal && leaks.reporters.size === 0 && leaks.isFromGithub === undefined) return
  const reporterOf = createReaders(leaks.reporters, clock, WANTED)
  const pace = createPace({ ...PACE, clock })
  const gate = createGate(AT_ONCE)
  const authenticate = async (request: FastifyRequest<{ Body: Buffer }>): Promise<string> => {
    if (isLocal) return 'socket'
    const signature = one(request, 'github-public-key-signature')
    if (signature === undefined || leaks.isFromGithub === undefined) return (await reporterOf(request)).name
    pace.admit(request.ip)
    const keyId = one(request, 'github-public-key-identifier') ?? ''
    if (await leaks.isFromGithub(request.body, keyId, signature)) return 'github'
    throw new GatewayError('client_invalid', 'The signature is not one that a key of GitHub made of this body.')
  }
  app.register(async (routes) => {
    // The signature is of the bytes.
    routes.removeAllContentTypeParsers()
    routes.addContentTypeParser(
      'application/json',
      { parseAs: 'buffer', bodyLimit: BODY_LIMIT_BYTES },
      (_request, body, done) => done(null, body),
    )
    const schema = {
      summary: 'Report credentials that were found where none may be; what is ours ends at once',
      description:
        'Takes {leaks: [{token, type, url, source}]}, and the array that GitHub sends to partners of its secret scanning; each is answered in its own form.',
      tags: ['leaks'],
    }
    routes.post<{ Body: Buffer }>('/leaks', { schema, bodyLimit: BODY_LIMIT_BYTES }, async (request, reply) => {
      const from = await authenticate(request)
      const { reports, isPartner } = reportsOf(request.body)
      const verdicts = await gate(() => leaks.take(reports, from))
      const told = reports.map((report, at) => ({ report, verdict: verdicts[at] as LeakVerdict }))
      void reply.header('cache-control', 'no-store')
      if (isPartner) return told.map(({ report, verdict }) => feedback(report, verdict, leaks.digest))
      return { results: told.map(({ report, verdict }) => viewOf(report, verdict, leaks.digest)) }
    })
  })
}

function viewOf(
  { token }: LeakReport,
  { kind, outcome }: LeakVerdict,
  digest: (token: string) => string,
): LeakReportView {
  return { token_hash: digest(token), kind, outcome }
}

/** As GitHub takes it. Of a token that ended long ago nothing is known any more. */
function feedback(
  { token, type = '' }: LeakReport,
  { kind }: LeakVerdict,
  digest: (token: string) => string,
): FeedbackView {
  const label = kind === 'unknown' ? 'false_positive' : 'true_positive'
  return { token_hash: digest(token), token_type: type, label }
}

/** @throws {GatewayError} `instruction_invalid` */
function reportsOf(body: unknown): { readonly reports: readonly LeakReport[]; readonly isPartner: boolean } {
  const told = parsed(Buffer.isBuffer(body) ? body : Buffer.alloc(0))
  const isPartner = Array.isArray(told)
  const listed = isPartner ? told : (told as { leaks?: unknown } | null)?.leaks
  if (!Array.isArray(listed) || listed.length === 0 || listed.length > MAX_REPORTS)
    throw invalid(`{"leaks": […]} or an array, with 1 to ${MAX_REPORTS} reports`)
  return { reports: listed.map(reportOf), isPartner }
}

function reportOf(value: unknown): LeakReport {
  const { token, type, url, source } = (value ?? {}) as Record<string, unknown>
  if (typeof token !== 'string' || token.length === 0 || token.length > MAX_TOKEN)
    throw invalid(`a token of 1 to ${MAX_TOKEN} characters in every report`)
  return {
    token,
    ...(typeof type === 'string' && { type }),
    ...(typeof url === 'string' && { url }),
    ...(typeof source === 'string' && { source }),
  }
}

function parsed(body: Buffer): unknown {
  try {
    return parseStrictJson(body.toString('utf8'))
  } catch {
    throw invalid('JSON')
  }
}

function one({ raw }: FastifyRequest, name: string): string | undefined {
  const [value, ...more] = valuesOf(raw.rawHeaders, name)
  return more.length === 0 ? value : undefined
}

function invalid(wanted: string): GatewayError {
  return new GatewayError('instruction_invalid', `The report cannot be read. Send ${wanted}, as application/json.`)
}
