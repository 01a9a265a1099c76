/** The part of the composition root that keeps the registry of agents: one object for the life of the gateway, whose contents change. */
import { isDeepStrictEqual } from 'node:util'
import type { Audit } from '../audit/audit.ts'
import type { Agent, Human } from '../protocol/grant.ts'

interface Taken {
  readonly isChanged: boolean
  readonly removed: readonly string[]
}

export class Registry {
  /** By id, the default one first. */
  readonly agents: Map<string, Agent>

  constructor(agents: readonly Agent[]) {
    this.agents = new Map(agents.map((agent) => [agent.id, agent]))
  }

  /**
   * Take up these agents in place of those before, once that is in the log.
   * @param by whoever asked; undefined: a signal.
   * @returns whether they are others than before, and ids that are registered no more. @throws {GatewayError} `audit_unavailable`: then nothing has changed.
   */
  async take(next: readonly Agent[], tenant: string, audit: Audit, by: Human | undefined): Promise<Taken> {
    if (isDeepStrictEqual([...this.agents.values()], next)) return { isChanged: false, removed: [] }
    const ids = next.map(({ id }) => id)
    const removed = [...this.agents.keys()].filter((id) => !ids.includes(id))
    const isOther = (agent: Agent) => this.agents.has(agent.id) && !isDeepStrictEqual(this.agents.get(agent.id), agent)
    const facts = {
      added: ids.filter((id) => !this.agents.has(id)),
      removed,
      changed: next.filter(isOther).map(({ id }) => id),
    }
    await audit.administer('admin.agents_reloaded', { tenant, ...(by && { human: by }) }, facts)
    this.agents.clear()
    for (const agent of next) this.agents.set(agent.id, agent)
    return { isChanged: true, removed }
  }
}
