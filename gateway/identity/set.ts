/**
 * Security event tokens of others (RFC 8417), verified by the row of settings about their issuer. Read by the rules of RFC 8725, with a
 * type of their own: no other JWT of that issuer passes for one. They have no end, so their age is bounded, and each counts once.
 */
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import { checkHeader, checkSignature, INERT_HEADERS, type Jwt, readJwt, textOf } from './jwt.ts'
import { createKeySet, download, type GuardedFetch, isRecord, type KeySet, keyFailure, readKeys } from './key-set.ts'
import { type Refuse, shown } from './refuse.ts'
import { type SignalAction, type SignalEvent, signalEventOf } from './set-events.ts'
import { type SignalTarget, targetOf } from './set-subject.ts'
import type { KeySource } from './trust-parts.ts'

/** RFC 8935 §2.4, and the same in RFC 8936. */
export type SetError =
  | 'invalid_request'
  | 'invalid_key'
  | 'invalid_issuer'
  | 'invalid_audience'
  | 'authentication_failed'
  | 'access_denied'

/** A token that will not be taken, however often it is sent. */
export class SetRefused extends GatewayError {
  readonly err: SetError
  /** As configured, of a token that names it; nothing of it is proved. */
  readonly issuer: string | undefined

  constructor(err: SetError, why: string, o: { issuer?: string | undefined; cause?: unknown } = {}) {
    super('signal_invalid', `The security event token is refused: ${why}.`, { cause: o.cause })
    this.err = err
    this.issuer = o.issuer
  }
}

/** A row of `signals.receive`. */
export interface SignalSource {
  readonly issuer: string
  readonly jwks: KeySource
  readonly addresses: readonly string[]
  readonly audience: readonly string[]
  readonly algorithms: readonly string[]
  readonly may: readonly ('human' | 'agent' | 'task')[]
  readonly humans: readonly string[]
  readonly email_is_sub: boolean
  readonly actions: Readonly<Record<string, SignalAction | undefined>>
  readonly max_age_s: number
  readonly clock_skew_s: number
}

/** What an issuer said, verified. */
export interface Signal<Source extends SignalSource = SignalSource> {
  readonly source: Source
  readonly jti: string
  /** Epoch seconds. */
  readonly issuedAt: number
  readonly events: readonly SignalEvent[]
  /** Whom it is about, or why nobody is meant by it. */
  readonly target: SignalTarget | string
}

export interface SetReader<Source extends SignalSource> {
  /** The row that a token names, before anything of it is proved. @throws {SetRefused} */
  sourceOf(token: string): Source
  /** @throws {SetRefused}; {GatewayError} `store_unavailable` while the issuer's keys cannot be had: it may come again. */
  verify(token: string): Promise<Signal<Source>>
}

interface ReaderOptions<Source> {
  readonly sources: readonly Source[]
  readonly fetchFor: (addresses: readonly string[]) => GuardedFetch
  readonly clock: Clock
}

const TYPE = ['secevent+jwt']
const MAX_EVENTS = 16

export function createSetReader<Source extends SignalSource>(o: ReaderOptions<Source>): SetReader<Source> {
  const rows = new Map(o.sources.map((source) => [source.issuer, { source, keys: keysOf(source, o) }]))
  const find = (jwt: Jwt) => {
    const { iss } = jwt.claims
    const row = typeof iss === 'string' ? rows.get(iss) : undefined
    if (row === undefined)
      throw new SetRefused('invalid_issuer', `no issuer ${shown(iss)} is configured under signals.receive`)
    return row
  }
  return {
    sourceOf: (token) => find(read(token)).source,
    async verify(token) {
      const jwt = read(token)
      const { source, keys } = find(jwt)
      await prove(jwt, { source, keys, nowS: Math.floor(o.clock.nowMs() / 1000) })
      return signalOf(jwt, source)
    },
  }
}

function read(token: string): Jwt {
  return readJwt(token, (why, cause) => new SetRefused('invalid_request', why, { cause }))
}

interface Proof {
  readonly source: SignalSource
  readonly keys: KeySet
  readonly nowS: number
}

async function prove(jwt: Jwt, { source, keys, nowS }: Proof): Promise<void> {
  const refuseAs =
    (err: SetError): Refuse =>
    (why, cause) =>
      new SetRefused(err, why, { issuer: source.issuer, cause })
  const rules = { typ: TYPE, algorithms: source.algorithms, inert: INERT_HEADERS }
  const { alg, kid } = checkHeader(jwt.header, rules, refuseAs('authentication_failed'))
  checkAudience(jwt, source, refuseAs('invalid_audience'))
  checkAge(jwt, source, { nowS, refuse: refuseAs('invalid_request') })
  const key = await keys.find(kid, alg).catch((cause) => {
    const detail = `The keys of ${source.issuer} cannot be had (${keyFailure(cause)}). Send the token again later.`
    throw new GatewayError('store_unavailable', detail, { cause })
  })
  if (key === undefined)
    throw refuseAs('invalid_key')(`its issuer publishes no ${alg} key ${kid === undefined ? 'of its own' : shown(kid)}`)
  await checkSignature(jwt, key, refuseAs('authentication_failed'))
}

function checkAudience({ claims: { aud } }: Jwt, { audience }: SignalSource, refuse: Refuse): void {
  const named = typeof aud === 'string' ? [aud] : aud
  if (!Array.isArray(named) || !named.some((name) => audience.includes(name)))
    throw refuse(`its audience is ${shown(aud)}, not ${audience.join(' or ')}`)
}

/** SSF 1.0: no `exp`, no `sub`, so that a token of another kind is not taken for one of these. */
function checkAge({ claims }: Jwt, source: SignalSource, { nowS, refuse }: { nowS: number; refuse: Refuse }): void {
  const { iat } = claims
  for (const name of ['exp', 'sub', 'nbf', 'cnf'])
    if (claims[name] !== undefined) throw refuse(`it has ${name}, which no security event token has`)
  if (typeof iat !== 'number' || !Number.isFinite(iat) || iat < 0)
    throw refuse('it does not say when it was issued (no iat)')
  if (iat - source.clock_skew_s > nowS) throw refuse(`it was issued ${Math.floor(iat) - nowS} s from now`)
  if (nowS - iat > source.max_age_s + source.clock_skew_s)
    throw refuse(`it was issued ${nowS - Math.floor(iat)} s ago, longer than the ${source.max_age_s} s accepted here`)
}

function signalOf<Source extends SignalSource>({ claims }: Jwt, source: Source): Signal<Source> {
  const { issuer, may, humans, email_is_sub: emailIsSub } = source
  const refuse: Refuse = (why, cause) => new SetRefused('invalid_request', why, { issuer, cause })
  const { events } = claims
  if (!isRecord(events) || Object.keys(events).length === 0) throw refuse('it has no events')
  if (Object.keys(events).length > MAX_EVENTS) throw refuse(`it has more than ${MAX_EVENTS} events`)
  const jti = textOf(claims, 'jti', refuse)
  const told = Object.entries(events).map(([uri, members]) => {
    if (!isRecord(members)) throw refuse(`its event ${shown(uri)} is not an object`)
    return signalEventOf(uri, members, source.actions)
  })
  const target = targetOf(claims.sub_id, { issuer, may, humans, emailIsSub })
  return { source, jti, issuedAt: claims.iat as number, events: told, target }
}

function keysOf<Source extends SignalSource>({ jwks, addresses }: Source, o: ReaderOptions<Source>): KeySet {
  const load = 'uri' in jwks ? download(jwks.uri, o.fetchFor(addresses)) : readKeys(jwks.file)
  return createKeySet({ load, use: 'sig', clock: o.clock })
}
