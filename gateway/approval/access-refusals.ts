/** What may be done with a request for access as it stands, and what whoever may not is told. */
import type { AccessView, Wanted } from '../protocol/access.ts'
import type { Grant, Human } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import { type AccessRecord, sameWanted } from './access-record.ts'

/** Pending ones of one agent or task, and altogether. */
export const MOST_OF_AGENT = 5
export const MOST = 200

/** The same agent in the same task, with the same key: its grant may have been renewed since. */
export function requireHolder({ task, agent, holder }: AccessRecord, now: Grant): void {
  const isSame = now.task.id === task.id && now.agent.id === agent.id && now.tenant === holder.tenant
  if (!isSame || JSON.stringify(now.cnf) !== JSON.stringify(holder.cnf)) throw unknown()
}

export function requirePending({ state }: AccessView): void {
  if (state !== 'pending') throw closed(`It is ${state} already.`)
}

/** A yes is to what somebody saw, or wrote: where nothing says what was seen, to what nobody else has changed. */
export function requireSeen({ wanted, editedBy }: AccessRecord, human: Human, seen: Wanted | undefined): void {
  const isKnown = editedBy === undefined || (editedBy.iss === human.iss && editedBy.sub === human.sub)
  if (seen === undefined ? isKnown : sameWanted(wanted, seen)) return
  throw closed(
    'Somebody else has changed it. Look at it again, and change it to what you want to give before you grant it.',
  )
}

export function requireGranted({ state }: AccessView): void {
  if (state === 'granted') return
  if (state === 'pending') throw new GatewayError('approval_required', 'Nobody has decided on it yet. Ask again later.')
  if (state === 'denied') throw new GatewayError('approval_denied', 'A human has denied it. Work with what you have.')
  throw closed(state === 'fetched' ? 'It was fetched already.' : 'Nobody decided on it, or fetched it, in time.')
}

export function closed(detail: string): GatewayError {
  return new GatewayError('approval_closed', detail)
}

export function unknown(): GatewayError {
  return new GatewayError('approval_unknown', 'There is no such request for access, or it is not yours.')
}

export function tooMany(own: number): GatewayError {
  return new GatewayError(
    'too_many_requests',
    own >= MOST_OF_AGENT
      ? `${own} requests of this agent, or its task, wait for a human already. Wait for them, or work with what you have.`
      : 'Too many requests wait for a human already. Try again later.',
  )
}

export function tooOften(most: number): GatewayError {
  return new GatewayError(
    'too_many_requests',
    `This agent, or its task, has asked for access ${most} times within an hour. Work with what you have.`,
    { retryAfterMs: 60_000 },
  )
}
