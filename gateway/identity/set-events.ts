/**
 * Security events that are understood (CAEP 1.0, RISC 1.0, SSF 1.0), and what each of them asks for. Anything else is recorded and changes
 * nothing (RFC 8417 §2: events that are not understood are ignored).
 */
import type { Claims } from './jwt.ts'

/** end: what lives under the subject. block: that, and what comes anew. lift: a block. note: nothing but the record. */
export const signalActions = ['end', 'block', 'lift', 'note'] as const
export type SignalAction = (typeof signalActions)[number]

type Family = 'caep' | 'risc' | 'ssf'

interface KnownEvent {
  readonly family: Family
  /** Unless settings say another. */
  readonly action: SignalAction
  /** Whether this one asks for it: not every change is for the worse. Default: all do. */
  readonly asks?: (members: Claims) => boolean
}

/** Last part of the event's URI → what it is. */
export const signalEvents: Readonly<Record<string, KnownEvent>> = {
  'session-revoked': { family: 'caep', action: 'end' },
  'credential-change': {
    family: 'caep',
    action: 'end',
    // A gateway like this one says so of each credential that its agents are done with: nothing is wrong with the human.
    asks: ({ change_type: change, credential_type: type }) =>
      change !== 'create' && !(change === 'revoke' && type === 'api-credential'),
  },
  'token-claims-change': { family: 'caep', action: 'note' },
  'assurance-level-change': {
    family: 'caep',
    action: 'end',
    // CAEP §3.4: without a direction it is unknown which way it went.
    asks: ({ change_direction }) => change_direction !== 'increase',
  },
  'device-compliance-change': {
    family: 'caep',
    action: 'end',
    asks: ({ current_status }) => current_status !== 'compliant',
  },
  'risk-level-change': { family: 'caep', action: 'end', asks: ({ current_level }) => current_level === 'HIGH' },
  'session-established': { family: 'caep', action: 'note' },
  'session-presented': { family: 'caep', action: 'note' },
  'account-disabled': { family: 'risc', action: 'block' },
  'account-purged': { family: 'risc', action: 'block' },
  'account-enabled': { family: 'risc', action: 'note' },
  'account-credential-change-required': { family: 'risc', action: 'end' },
  'credential-compromise': { family: 'risc', action: 'end' },
  'identifier-changed': { family: 'risc', action: 'end' },
  'identifier-recycled': { family: 'risc', action: 'end' },
  'sessions-revoked': { family: 'risc', action: 'end' },
  'recovery-activated': { family: 'risc', action: 'note' },
  'recovery-information-changed': { family: 'risc', action: 'note' },
  verification: { family: 'ssf', action: 'note' },
  'stream-updated': { family: 'ssf', action: 'note' },
}

export interface SignalEvent {
  /** `session-revoked`; the whole URI of one that is not understood, cut. */
  readonly name: string
  readonly action: SignalAction
  /** Why, in the issuer's words, one line of at most 120 characters. */
  readonly reason: string | undefined
}

const BASE = 'https://schemas.openid.net/secevent/'
const MAX_REASON = 120
const MAX_NAME = 120

/** @param actions what settings say of this issuer. */
export function signalEventOf(
  uri: string,
  members: Claims,
  actions: Readonly<Record<string, SignalAction | undefined>>,
): SignalEvent {
  const [, family, name] = uri.startsWith(BASE)
    ? (/^([a-z]+)\/event-type\/([a-z-]+)$/.exec(uri.slice(BASE.length)) ?? [])
    : []
  const known = name !== undefined && Object.hasOwn(signalEvents, name) ? signalEvents[name] : undefined
  const reason = reasonIn(members)
  if (name === undefined || known === undefined || known.family !== family)
    return { name: oneLine(uri).slice(0, MAX_NAME), action: 'note', reason }
  const isAsked = known.asks?.(members) ?? true
  return { name, action: isAsked ? (actions[name] ?? known.action) : 'note', reason }
}

/** CAEP §2: language → text. RISC `account-disabled` has a word of its own. */
function reasonIn({ reason_admin: told, reason }: Claims): string | undefined {
  const texts = typeof told === 'object' && told !== null ? Object.values(told) : [told ?? reason]
  const text = texts.find((one) => typeof one === 'string')
  return typeof text === 'string' ? oneLine(text).slice(0, MAX_REASON) : undefined
}

function oneLine(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ').trim()
}
