/**
 * The part of the composition root that words refusals: in the dialect of where the request was going, with what its agent may do
 * instead. That is worked out once a call is refused and recorded, for agents that are known, and no oftener than is worth it.
 */
import { writeRefusal } from '../ingress/refusal.ts'
import { candidates } from '../policy/tools/alternatives.ts'
import type { Advice, Alternative } from '../protocol/advice.ts'
import { type Ask, type Decision, isAllowed } from '../protocol/decision.ts'
import { DESK_URL } from '../protocol/desk.ts'
import type { Grant } from '../protocol/grant.ts'
import type { Inbound } from '../protocol/message.ts'
import { type GatewayError, type ProblemCode, problems } from '../protocol/problem.ts'
import type { Endpoint } from '../protocol/service.ts'
import { ask } from '../request-deciding.ts'
import type { RequestRooms } from '../request-rooms.ts'

/** Of these candidates as many are evaluated, and so many are told. */
const MOST_ASKED = 12
const MOST_TOLD = 4
/** Refusals of one agent in a second that are told alternatives: who asks faster than that reads none of them. */
const PER_SECOND = 10

interface Rooms extends Pick<RequestRooms, 'nowMs'> {
  readonly catalogue: { locate(inbound: Inbound): Endpoint }
  /** Without engines outside the gateway: nobody is asked for a hint. */
  readonly policy: { evaluate(ask: Ask): Decision | Promise<Decision> }
  /** Of the control door, for agents that came by a base URL: they hold what they present. */
  readonly publicUrl: string
}

export function openRefusals(rooms: Rooms): RequestRooms['refusals'] {
  const isWorthIt = paceOf(rooms.nowMs)
  return {
    async write(inbound, refusal, endpoint, grant) {
      if (grant !== undefined) {
        const advice = await adviceOn(inbound, refusal, { endpoint, grant, rooms, isWorthIt }).catch(() => ({})) // it is refused either way
        refusal.advice = { ...refusal.advice, ...advice, ...reachable(inbound, refusal.advice, rooms) }
      }
      writeRefusal(inbound, refusal, endpoint ?? placeOf(rooms.catalogue, inbound))
    },
  }
}

/** Where an unauthenticated request wanted to go, only so that its refusal is worded as the clients of that service show it. */
function placeOf(catalogue: Rooms['catalogue'], inbound: Inbound): Endpoint | undefined {
  try {
    return catalogue.locate(inbound)
  } catch {
    return undefined // it is refused already
  }
}

interface Around {
  readonly endpoint: Endpoint | undefined
  readonly grant: Grant
  readonly rooms: Rooms
  isWorthIt(agent: string): boolean
}

async function adviceOn(
  inbound: Inbound,
  { code }: GatewayError,
  { endpoint, grant, rooms, isWorthIt }: Around,
): Promise<Advice> {
  const isAuthority = problems[code].remedy === 'ask_grantor' || problems[code].remedy === 'request_approval'
  if (!isAuthority) return {}
  const isInsteadOf = endpoint !== undefined && !FOR_ALL.has(code) && isWorthIt(grant.agent.id)
  const instead = isInsteadOf ? await alternatives(inbound, grant, endpoint, rooms) : []
  const isAsked = endpoint !== undefined && ASKABLE.has(code)
  const scope = endpoint?.operation.name ?? ''
  const body = { scope, reason: '<why your task needs it>', event: inbound.id }
  return {
    ...(instead.length > 0 && { instead }),
    ...(isAsked && { how_to_ask: { method: 'POST', url: `${doorOf(inbound, rooms)}/access-requests`, body } }),
  }
}

/** Where this agent can ask the gateway: with a proxy it may hold nothing to present elsewhere. */
function doorOf({ mode }: Inbound, { publicUrl }: Rooms): string {
  return mode === 'reverse' ? publicUrl : DESK_URL
}

function reachable(inbound: Inbound, { approval }: Advice = {}, rooms: Rooms): Advice {
  if (approval === undefined) return {}
  return { approval: { ...approval, status_url: `${doorOf(inbound, rooms)}/approvals/${approval.id}/status` } }
}

/** What more authority would help against. */
const ASKABLE: ReadonlySet<ProblemCode> = new Set([
  'policy_denied',
  'scope_exceeded',
  'constraint_unmet',
  'use_spent',
  'limit_exceeded',
])

/** What is spent, or blocked, is so for the other operations as well. */
const FOR_ALL: ReadonlySet<ProblemCode> = new Set(['limit_exceeded', 'access_blocked'])

async function alternatives(
  inbound: Inbound,
  grant: Grant,
  endpoint: Endpoint,
  rooms: Rooms,
): Promise<readonly Alternative[]> {
  const found: Alternative[] = []
  for (const candidate of candidates(endpoint, grant, MOST_ASKED)) {
    const { method, request, endpoint: other } = candidate
    const { upgrade: _, content: __, ...plain } = inbound
    const asked = ask({ ...plain, method, rawPath: other.rawPath }, grant, other, rooms)
    const decision = await rooms.policy.evaluate(asked)
    if (!isAllowed(decision)) continue
    const { name, access } = other.operation
    found.push({
      operation: name,
      access,
      request,
      ...(decision.obligations.approval && { needs_approval: true as const }),
    })
    if (found.length === MOST_TOLD) break
  }
  return found
}

/** A count per agent, forgotten every second. */
function paceOf(nowMs: () => number): (agent: string) => boolean {
  let second = 0
  const counts = new Map<string, number>()
  return (agent) => {
    const now = Math.floor(nowMs() / 1000)
    if (now !== second) counts.clear()
    second = now
    const count = (counts.get(agent) ?? 0) + 1
    counts.set(agent, count)
    return count <= PER_SECOND
  }
}
