/**
 * Whom a security event is about (RFC 9493, SSF 1.0 §3), as far as its issuer may speak of them. An issuer's word counts for its own
 * humans alone, unless settings name other issuers: a subject of somebody else's is nobody here.
 */
import type { RevocationTarget } from '../protocol/revocation.ts'
import type { Claims } from './jwt.ts'
import { isRecord } from './key-set.ts'

export interface SubjectTerms {
  readonly issuer: string
  readonly may: readonly ('human' | 'agent' | 'task')[]
  readonly humans: readonly string[]
  readonly emailIsSub: boolean
}

export type SignalTarget = Extract<RevocationTarget, { human: unknown } | { agent: string } | { task: string }>

/** @returns a sentence's end where the subject names nobody whom this issuer may speak about. */
export function targetOf(subject: unknown, terms: SubjectTerms): SignalTarget | string {
  if (!isRecord(subject)) return 'it has no sub_id'
  if (subject.format === 'aliases') return aliased(subject.identifiers, terms)
  if (subject.format !== 'complex') return humanOf(subject, terms)
  const { user, application, session } = subject
  // The user first: a device, session or tenant beside it narrows what is meant, and is not known here. More ends rather than less.
  if (user !== undefined) return humanOf(user, terms)
  if (application !== undefined) return named('agent', application, terms)
  if (session !== undefined) return named('task', session, terms)
  return 'its subject has neither user, application nor session'
}

/** RFC 9493 §3.2.8: all are the same subject, so the first that is known is it. */
function aliased(identifiers: unknown, terms: SubjectTerms): SignalTarget | string {
  if (!Array.isArray(identifiers) || identifiers.length > 16) return 'its subject has no list of identifiers'
  const found = identifiers.map((one) => (isRecord(one) && one.format !== 'aliases' ? humanOf(one, terms) : ''))
  return found.find((target) => typeof target !== 'string') ?? 'none of its identifiers is known here'
}

function humanOf(subject: unknown, { issuer, may, humans, emailIsSub }: SubjectTerms): SignalTarget | string {
  if (!isRecord(subject)) return 'its user is no subject identifier'
  if (!may.includes('human')) return 'this issuer may not end access of humans (signals.receive, may)'
  const { format, iss, sub, email } = subject
  if (format === 'iss_sub' && isName(iss) && isName(sub))
    return humans.includes(iss)
      ? { human: { iss, sub } }
      : 'its subject is of another issuer, for whom this one does not speak'
  if (format === 'email' && isName(email) && emailIsSub) {
    const [first] = humans
    return first === undefined || humans.length > 1
      ? 'an e-mail address does not say of which issuer'
      : { human: { iss: first, sub: email } }
  }
  return `subjects of format ${typeof format === 'string' ? JSON.stringify(format.slice(0, 40)) : 'unknown'} are nobody here (${JSON.stringify(issuer)})`
}

/** SSF 1.0: an opaque id or a URI, which is what tasks and agents are known by. */
function named(kind: 'agent' | 'task', subject: unknown, { may }: SubjectTerms): SignalTarget | string {
  if (!may.includes(kind)) return `this issuer may not end access of ${kind}s (signals.receive, may)`
  const { format, id, uri } = (isRecord(subject) ? subject : {}) as Claims
  const name = format === 'opaque' ? id : format === 'uri' ? uri : undefined
  if (!isName(name)) return `its ${kind === 'agent' ? 'application' : 'session'} is neither opaque nor a URI`
  return kind === 'agent' ? { agent: name } : { task: name }
}

function isName(value: unknown): value is string {
  return typeof value === 'string' && value.length > 0 && value.length <= 255 && !/\p{Cc}/u.test(value)
}
