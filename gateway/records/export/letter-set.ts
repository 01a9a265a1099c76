/**
 * Claims of security event tokens (RFC 8417) for what others should know: access that ended (CAEP `session-revoked`), credentials that
 * did (`credential-change`), credentials that leaked (RISC `credential-compromise`). One event each, no `exp` and no `sub` (SSF 1.0). A
 * task is a session, an agent an application; the human is named by issuer and subject, so that whoever knows the one knows the other.
 */
import { agentOf } from './call.ts'
import type { Exported, Item } from './item.ts'
import type { LetterTerms } from './letter-terms.ts'

const CAEP = 'https://schemas.openid.net/secevent/caep/event-type'
const RISC = 'https://schemas.openid.net/secevent/risc/event-type'
const SSF = 'https://schemas.openid.net/secevent/ssf/event-type'

export const SENT_EVENTS: readonly string[] = [
  `${CAEP}/session-revoked`,
  `${CAEP}/credential-change`,
  `${RISC}/credential-compromise`,
]

const VERIFICATION_EVENT = `${SSF}/verification`

/** What RISC and CAEP call a kind of credential is agreed upon by both sides where their own list has none that fits. */
const CREDENTIAL_TYPE = 'api-credential'
const MAX_REASON = 200

type Members = Readonly<Record<string, unknown>>
type Facts = Readonly<Record<string, unknown>>

interface SecurityEvent {
  readonly type: string
  readonly members: Members
}

export function setText({ entry }: Item, terms: LetterTerms, jti: string): string | undefined {
  const event = eventOf(entry)
  const subject = subjectOf(entry)
  if (event === undefined || subject === undefined) return undefined
  const atS = Math.floor(Date.parse(entry.ts) / 1000)
  const events = { [event.type]: { event_timestamp: atS, ...event.members } }
  const txn = entry.req ?? entry.task?.id
  return JSON.stringify({ ...addressed(terms, jti, atS), ...(txn !== undefined && { txn }), sub_id: subject, events })
}

/** SSF 1.0, verification event: the subject is the stream. `state` only as the receiver gave it. */
export function verificationText(terms: LetterTerms, jti: string, o: { nowS: number; state?: string }): string {
  const events = { [VERIFICATION_EVENT]: o.state === undefined ? {} : { state: o.state } }
  return JSON.stringify({ ...addressed(terms, jti, o.nowS), sub_id: { format: 'opaque', id: terms.stream }, events })
}

function addressed({ publicUrl, audience }: LetterTerms, jti: string, iat: number): Members {
  return { iss: publicUrl, aud: audience, jti, iat }
}

function eventOf(entry: Exported): SecurityEvent | undefined {
  const facts = (entry.facts ?? {}) as Facts
  switch (entry.kind) {
    case 'grant.revoked':
    case 'revocation.ordered':
      // What a signal ordered is not told to others: two who hear each other would never come to an end.
      if (facts.by === 'signal') return undefined
      return { type: `${CAEP}/session-revoked`, members: why(facts, 'access ended') }
    case 'lease.revoked': {
      if (facts.outcome !== 'revoked' && facts.outcome !== 'expired') return undefined
      const what = { credential_type: CREDENTIAL_TYPE, change_type: 'revoke', friendly_name: nameIn(facts) }
      return { type: `${CAEP}/credential-change`, members: { ...what, ...why(facts, 'no longer used') } }
    }
    case 'leak.detected':
      return {
        type: `${RISC}/credential-compromise`,
        members: { credential_type: CREDENTIAL_TYPE, reason_admin: { en: `found in an answer: ${nameIn(facts)}` } },
      }
    default:
      return undefined
  }
}

function nameIn({ credential, service, provider }: Facts): string {
  return [credential, service, provider].find((name) => typeof name === 'string') ?? 'credential'
}

function why({ reason, detail, by }: Facts, otherwise: string): Members {
  const text = [reason, detail].find((one) => typeof one === 'string' && one !== '') ?? otherwise
  const entity = by === 'automatic' ? 'policy' : by === 'human' ? 'admin' : 'system'
  return { initiating_entity: entity, reason_admin: { en: String(text).slice(0, MAX_REASON) } }
}

/** RFC 9493 and SSF §3: undefined where nobody is named. What is sealed or masked in the log names nobody. */
function subjectOf(entry: Exported): Members | undefined {
  const members = entry.kind === 'revocation.ordered' ? targetOf(entry) : actorsOf(entry)
  return Object.keys(members).length === 0 ? undefined : { format: 'complex', ...members }
}

function actorsOf(entry: Exported): Members {
  const agent = agentOf(entry)?.id
  const session = entry.task?.id
  return {
    ...userOf(entry.human),
    ...(session !== undefined && { session: { format: 'opaque', id: session } }),
    ...(agent !== undefined && { application: { format: 'opaque', id: agent } }),
  }
}

/** Of an order, `human` is its target only where that is one; else it is who gave it. Tasks and grants have entries of their own. */
function targetOf({ facts, human }: Exported): Members {
  const { target, name } = (facts ?? {}) as Facts
  if (target === 'human') return userOf(human)
  return target === 'agent' && typeof name === 'string' ? { application: { format: 'opaque', id: name } } : {}
}

function userOf(human: Exported['human']): Members {
  const { iss, sub } = human ?? {}
  return typeof iss === 'string' && typeof sub === 'string' ? { user: { format: 'iss_sub', iss, sub } } : {}
}
