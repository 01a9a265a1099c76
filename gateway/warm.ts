/**
 * FLOW 3: a credential fetched ahead of the call that it is for. Decided like that call and recorded before anybody is asked; the call
 * itself is decided anew when it comes, so that what lies ready gives nobody anything.
 */
import type { Receipt } from './audit/entries/event.ts'
import type { Lease } from './lease/lease.ts'
import { type Permit, requirePermit } from './policy/decision.ts'
import { patternCovers } from './protocol/authority.ts'
import { type Ask, type Decision, isSingleUse } from './protocol/decision.ts'
import type { Grant } from './protocol/grant.ts'
import type { Destination } from './protocol/message.ts'
import { asGatewayError, GatewayError, type ProblemCode } from './protocol/problem.ts'
import { type Endpoint, plainHost, type Service } from './protocol/service.ts'

/** The few methods that the flow needs of each room; `house/leases.ts` hands them over. */
export interface WarmRooms {
  readonly catalogue: {
    service(name: string): Service | undefined
    locate(inbound: Destination): Endpoint
  }
  readonly policy: { evaluate(ask: Ask): Decision | Promise<Decision> }
  readonly audit: {
    recordUnder(kind: 'lease.warmed', grant: Grant, facts: Record<string, string | string[]>): Promise<Receipt>
  }
  readonly leases: {
    holds(permit: Permit): boolean
    acquire(permit: Permit, receipt: Receipt): Lease | Promise<Lease>
  }
  readonly nowMs: () => number
}

export interface Warmed {
  /** As it was asked for. */
  readonly target: string
  /** Credentials that lie ready for it now, and how many of them were fetched for it. */
  readonly ready: number
  readonly fetched: number
  /** Why there is none, or not every one. */
  readonly code?: ProblemCode
  readonly detail?: string
}

/**
 * @param target `github`: every operation of the service that the grant covers; `github:issues.read`: this one; `GET https://…`: the
 *   credential for this very request, where it depends on the path.
 */
export async function warm(target: string, grant: Grant, rooms: WarmRooms): Promise<Warmed> {
  let ready = 0
  let fetched = 0
  let refusal: GatewayError | undefined
  try {
    for (const ask of asksOf(target, grant, rooms)) {
      try {
        const isFetched = await warmOne(ask, rooms)
        ready += 1
        if (isFetched) fetched += 1
      } catch (cause) {
        refusal ??= asGatewayError(cause)
      }
    }
  } catch (cause) {
    refusal = asGatewayError(cause) // the target cannot be understood
  }
  if (refusal === undefined) return { target, ready, fetched }
  return { target, ready, fetched, code: refusal.code, detail: refusal.detail }
}

async function warmOne(ask: Ask, { policy, audit, leases }: WarmRooms): Promise<boolean> {
  const { grant, endpoint } = ask
  const decision = await policy.evaluate(ask) // 1 may it
  const permit = requirePermit(grant, endpoint, decision) // 2 or a refusal
  if (isSingleUse(decision)) throw singleUse(endpoint)
  if (leases.holds(permit)) return false
  const receipt = await audit.recordUnder('lease.warmed', grant, {
    service: endpoint.service.name,
    operation: endpoint.operation.name,
    policy_ids: [...decision.policyIds],
  }) // 3 durable, or stop
  using _lease = await leases.acquire(permit, receipt) // 4 under the key of the call to come
  return true
}

function singleUse({ operation }: Endpoint): GatewayError {
  return new GatewayError(
    'instruction_invalid',
    `The credential of ${operation.name} serves one call and is never kept, so none can lie ready. Leave it out.`,
  )
}

function asksOf(target: string, grant: Grant, rooms: WarmRooms): readonly Ask[] {
  const [, method, address] = /^(?:([A-Z]+) )?(https?:\/\/\S+)$/.exec(target) ?? []
  if (address !== undefined) return [askAt(new URL(address), method ?? 'GET', grant, rooms)]
  const [name = ''] = target.split(':', 1)
  const service = rooms.catalogue.service(name)
  const host = service && plainHost(service)
  if (service === undefined || host === undefined) throw unknownTarget(target)
  const wanted = service.operations.filter((operation) =>
    target === name ? isPlanned(operation.name, grant) : patternCovers(target, operation.name),
  )
  if (wanted.length === 0) throw unknownTarget(target)
  const place = { scheme: service.scheme, host, port: service.ports[0] ?? 443, path: '/', rawPath: '/', params: {} }
  return wanted.map((operation) => ({
    ...{ grant, nowMs: rooms.nowMs(), sourceAddress: '127.0.0.1', rawPath: '/' },
    endpoint: { ...place, service, operation },
    method: operation.access === 'read' ? 'GET' : 'POST',
  }))
}

/** What the grant names; a call that it does not cover is refused by policy. */
function isPlanned(operation: string, { authority }: Grant): boolean {
  return authority.some(({ operations }) => operations.some((pattern) => patternCovers(pattern, operation)))
}

/** Located as the call will be. */
function askAt(url: URL, method: string, grant: Grant, { catalogue, nowMs }: WarmRooms): Ask {
  const scheme = url.protocol === 'http:' ? 'http' : 'https'
  const place = { scheme, host: url.hostname, port: Number(url.port || (scheme === 'http' ? 80 : 443)) } as const
  const rawPath = `${url.pathname}${url.search}`
  const endpoint = catalogue.locate({
    ...place,
    method,
    rawPath,
    mode: 'forward',
    hostHeader: undefined,
    rawHeaders: [],
  })
  return { grant, endpoint, method, rawPath, sourceAddress: '127.0.0.1', nowMs: nowMs() }
}

function unknownTarget(target: string): GatewayError {
  return new GatewayError(
    'instruction_invalid',
    `${JSON.stringify(target.slice(0, 80))} is no service of this gateway with an operation that the grant names. Write a service (github), an operation (github:issues.read) or a request (GET https://api.github.com/…).`,
  )
}
