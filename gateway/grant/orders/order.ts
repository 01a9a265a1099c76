/**
 * Orders that are about more than one grant: all of an agent, of a human, under a set of policies, everything; and what is blocked
 * for every grant: a service, a credential. An order ends what was issued without knowledge of it, whichever replica issued it and
 * whatever its clock said; a block ends what comes anew as well. State of one process; what is in force everywhere: `orders.ts`.
 */
import type { Grant } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Block, RevocationTarget, SignalWord } from '../../protocol/revocation.ts'
import type { Service } from '../../protocol/service.ts'

/** Grants and tasks end by their marks. */
export type OrderTarget = Exclude<RevocationTarget, { readonly grant: string } | { readonly task: string }>

export interface Order {
  /** UUIDv7; the entries of the order name it. */
  readonly id: string
  readonly target: OrderTarget
  readonly reason: string
  /** Epoch seconds. */
  readonly sinceS: number
  /** Of the orders, when this one was given or changed last: grants that were issued after an older version are ended. */
  readonly version: number
  /** Epoch seconds until which what comes anew is refused; null: until it is lifted. Absent: it is not. */
  readonly untilS?: number | null
  /** Epoch seconds from which nothing is left that it could be about. */
  readonly keptUntilS: number
  /** Whose word alone it is; absent: somebody else has said so too. */
  readonly signal?: SignalWord
}

export const FOR_EVER_S = Number.MAX_SAFE_INTEGER

/** What an order is about, in one way of writing. */
export function aboutOf(target: OrderTarget): string {
  if ('agent' in target) return `agent ${target.agent}`
  if ('human' in target) return humanName(target.human)
  if ('service' in target) return `service ${target.service}`
  if ('credential' in target) return `credential ${target.credential}`
  if ('policySet' in target) return `policies ${target.policySet}`
  return 'everything'
}

/** What is ordered from this moment on has a greater version, by this clock. */
export function versionAt(nowMs: number): number {
  return Math.floor(nowMs * 1000)
}

/** Whether it takes the place of the other, which is about the same. Of two with one number the stricter does. */
export function supersedes(order: Order, other: Order): boolean {
  if (order.version !== other.version) return order.version > other.version
  return lastOf(order) > lastOf(other)
}

function lastOf({ untilS }: Order): number {
  return untilS === null ? Number.POSITIVE_INFINITY : (untilS ?? 0)
}

/** Two orders about the same, given at once. */
export function joined(order: Order, other: Order): Order {
  const { signal: _, ...rest } = order
  const untilS = later(order.untilS, other.untilS)
  return {
    ...rest,
    ...saidBy(order, other),
    ...(untilS !== undefined && { untilS }),
    keptUntilS: Math.max(order.keptUntilS, other.keptUntilS),
  }
}

type Said = Pick<Order, 'signal' | 'untilS'>

/** Whose word alone a block is that both have asked for: of one issuer the later one. */
export function saidBy(order: Said, other: Said): Pick<Order, 'signal'> {
  const asked = [order, other].filter(({ untilS }) => untilS !== undefined)
  const [a, b] = asked.map(({ signal }) => signal)
  if (asked.length < 2 || a === undefined || b === undefined) return asked.length === 1 && a ? { signal: a } : {}
  if (a.issuer !== b.issuer) return {}
  return { signal: a.issuedAt >= b.issuedAt ? a : b }
}

/** Whether a signal takes the block back: what people, the gateway or others have said is not an issuer's to take back. */
export function isLiftedBy({ signal }: Order, { issuer, issuedAt }: SignalWord): boolean {
  return signal?.issuer === issuer && signal.issuedAt <= issuedAt
}

/** Null is for ever. */
export function later(a: number | null | undefined, b: number | null | undefined): number | null | undefined {
  if (a === null || b === null) return null
  return a === undefined ? b : b === undefined ? a : Math.max(a, b)
}

export class InForce {
  /** `aboutOf` the target → the newest order */
  readonly #orders = new Map<string, Order>()

  /** Nothing was ever ordered that anybody still has to know of. */
  get isEmpty(): boolean {
    return this.#orders.size === 0
  }

  /** With what each is about. */
  get all(): Iterable<readonly [about: string, order: Order]> {
    return this.#orders
  }

  about(target: OrderTarget): Order | undefined {
    return this.#orders.get(aboutOf(target))
  }

  /** @returns whether it is news: an older one never takes the place of a newer. */
  take(order: Order): boolean {
    const about = aboutOf(order.target)
    const known = this.#orders.get(about)
    if (known !== undefined && !supersedes(order, known)) return false
    this.#orders.set(about, order)
    return true
  }

  /** @returns what nobody has to know of any more. */
  forget(nowS: number): readonly Order[] {
    const over = [...this.#orders.values()].filter((order) => order.keptUntilS <= nowS)
    for (const { target } of over) this.#orders.delete(aboutOf(target))
    return over
  }

  /** Why the grant is over; undefined while nothing that is in force ends it. */
  endOf(grant: Grant, nowS: number): GatewayError | undefined {
    for (const [about, after] of holdsOf(grant)) {
      const order = this.#orders.get(about)
      if (order === undefined) continue
      if (isBlocking(order, nowS)) return blocked(order)
      if (after < order.version) return ended(order)
    }
    return undefined
  }

  /** Why no call goes to the service; undefined while it is open. */
  closureOf({ name, credential }: Pick<Service, 'name' | 'credential'>, nowS: number): GatewayError | undefined {
    return (
      this.#closure(`service ${name}`, nowS) ??
      (credential === undefined ? undefined : this.#closure(`credential ${credential}`, nowS))
    )
  }

  blocks(nowS: number): readonly Block[] {
    return [...this.#orders.values()]
      .filter((order) => isBlocking(order, nowS))
      .map(({ id, target, reason, untilS = null, sinceS }) => ({ id, target, reason, untilS, sinceS }))
  }

  #closure(about: string, nowS: number): GatewayError | undefined {
    const order = this.#orders.get(about)
    return order !== undefined && isBlocking(order, nowS) ? blocked(order) : undefined
  }
}

export function isBlocking({ untilS }: Order, nowS: number): boolean {
  return untilS === null || (untilS !== undefined && nowS < untilS)
}

/** Names under which an order would be about the grant, each with the version of the orders that was known when that came in. */
function* holdsOf({ human, lineage, issuance, beside }: Grant): Generator<readonly [about: string, after: number]> {
  const first = issuance?.[0]?.after ?? 0
  yield ['everything', first]
  yield [humanName(human), first]
  for (let by = beside; by !== undefined; by = by.beside) {
    yield [humanName(by.human), first]
    for (const agent of by.agents) yield [`agent ${agent}`, first]
  }
  const agents = lineage.filter(({ type }) => type === 'ai_agent')
  for (const [i, { id }] of agents.entries()) {
    const made = issuance?.[i]
    yield [`agent ${id}`, made?.after ?? 0]
    if (made !== undefined) yield [`policies ${made.policySet}`, made.after]
  }
}

/** Neither part can be taken for the other. */
function humanName({ iss, sub }: { readonly iss: string; readonly sub: string }): string {
  return `human ${JSON.stringify([iss, sub])}`
}

/** What the order names, as an agent may be told: the words of whoever gave it stay in the record. */
function words(target: OrderTarget): string {
  if ('agent' in target) return `the agent ${target.agent}`
  if ('human' in target) return 'the human who authorised the task'
  if ('service' in target) return `the service ${target.service}`
  if ('credential' in target) return 'the credential of the service'
  if ('policySet' in target) return 'everything issued under the policies of then'
  return 'everything'
}

function ended({ target }: Order): GatewayError {
  return new GatewayError('grant_revoked', `The grant has ended: ${words(target)} was revoked. Open a new task.`)
}

function blocked({ target, untilS }: Order): GatewayError {
  const until = typeof untilS === 'number' ? ` until ${new Date(untilS * 1000).toISOString()}` : ''
  return new GatewayError(
    'access_blocked',
    `Access is blocked for ${words(target)}${until}. Do not try again before whoever runs the gateway has lifted it.`,
  )
}
