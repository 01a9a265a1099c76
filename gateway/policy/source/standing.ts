/**
 * Calls that last are decided again: at once when policies or agents are others than before, and every few seconds, because what
 * policy reads of the time changes by itself. What would be refused now is cut. Nothing runs while nothing lasts.
 */
import type { Ask, Decision, Standing } from '../../protocol/decision.ts'
import type { Agent } from '../../protocol/grant.ts'
import { asGatewayError, GatewayError } from '../../protocol/problem.ts'
import { type Placed, Roster } from '../../protocol/roster.ts'

export interface StandingParts {
  readonly policy: { readonly digest: string; evaluate(ask: Ask): Decision | Promise<Decision> }
  /** Registered agents by id. */
  readonly agents: ReadonlyMap<string, Agent>
  nowMs(): number
}

type Cut = (why: GatewayError) => void

interface Lasting extends Placed {
  readonly ask: Ask
  /** As it was let through. */
  readonly decision: Decision
  readonly cut: Cut
}

const EVERY_MS = 10_000
/** Decided in one turn: others wait meanwhile. */
const AT_ONCE = 64

export class Standings {
  readonly #parts: StandingParts
  readonly #lasting = new Roster<Lasting>()
  #timer: NodeJS.Timeout | undefined
  /** Counts what makes all calls be decided again. */
  #round = 0

  constructor(parts: StandingParts) {
    this.#parts = parts
  }

  get size(): number {
    return this.#lasting.size
  }

  /**
   * @param cut called at most once, never before this returns: `policy_denied`, `agent_unknown`, … Must not throw.
   * @returns stops watching. Idempotent.
   */
  watch({ ask, decision }: Standing, cut: Cut): () => void {
    const lasting = { ask, decision, cut, place: -1 }
    this.#lasting.add(lasting)
    this.#timer ??= setInterval(() => void this.recheck(), EVERY_MS).unref()
    // Policies may have changed while its credential was fetched.
    if (decision.policySet !== this.#parts.policy.digest) queueMicrotask(() => void this.#check(lasting))
    return () => this.#forget(lasting)
  }

  /** All of them, some at a time. One that begins while this runs ends the one before: it is about newer policies. */
  async recheck(): Promise<void> {
    const round = ++this.#round
    const all = this.#lasting.all()
    // Together: engines outside the gateway are waited for once, not once for each.
    for (let from = 0; from < all.length && round === this.#round; from += AT_ONCE) {
      const some = all.slice(from, from + AT_ONCE).filter((lasting) => this.#lasting.has(lasting))
      await Promise.all(some.map((lasting) => this.#check(lasting)))
      await new Promise((done) => setImmediate(done))
    }
  }

  /** Never rejects. */
  async #check(lasting: Lasting): Promise<void> {
    const why = await this.#refusal(lasting)
    if (why === undefined || !this.#lasting.has(lasting)) return
    this.#forget(lasting)
    lasting.cut(why)
  }

  async #refusal({ ask, decision }: Lasting): Promise<GatewayError | undefined> {
    try {
      return await refusalNow(ask, decision, this.#parts)
    } catch (cause) {
      return asGatewayError(cause) // nobody can say that it may go on
    }
  }

  #forget(lasting: Lasting): void {
    this.#lasting.delete(lasting)
    if (this.#lasting.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }
}

/**
 * Why a call that was let through would not be let through now. What was known of it then is what is known of it now, but for the
 * time and its agent: it is not counted among the calls before it.
 */
export async function refusalNow(
  { grant, ...ask }: Ask,
  before: Decision,
  { policy, agents, nowMs }: StandingParts,
): Promise<GatewayError | undefined> {
  const agent = agents.get(grant.agent.id)
  if (agent === undefined)
    return new GatewayError('agent_unknown', `The agent ${grant.agent.id} of this call is not registered any more.`)
  const current = agent === grant.agent ? grant : { ...grant, agent }
  const now = await policy.evaluate({ ...ask, grant: current, nowMs: nowMs() })
  if (now.effect !== 'allow' || now.errors.length > 0) return new GatewayError(now.code ?? 'policy_denied', now.detail)
  const { approval } = now.obligations
  if (approval === undefined || JSON.stringify(approval) === JSON.stringify(before.obligations.approval))
    return undefined
  return new GatewayError(
    'approval_required',
    `Policy has changed: somebody has to approve ${ask.endpoint.operation.name} now. Make the call again: it asks for that.`,
  )
}
