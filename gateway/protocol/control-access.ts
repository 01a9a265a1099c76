/** JSON of the control door about requests for access, snake_case as on the wire. */
import type { AccessState, AccessView, Wanted } from './access.ts'

/** `POST /access-requests`, with the grant of whoever asks. At least one of `scope` and `authorization_details`. */
export interface AccessAskBody extends Wanted {
  /** Why; for a human, who is told that nobody has verified it. */
  readonly reason: string
  /** `instance` of the refusal. */
  readonly event?: string
}

/** What the agent is told: 202 of `POST /access-requests`, 200 of `GET …/:id/status`. */
export interface AccessStatusView extends Wanted {
  readonly id: string
  readonly state: AccessState
  readonly status_url: string
  /** Seconds between two questions. */
  readonly interval: number
  readonly expires_at: number
  /** Once it is granted: POST here, with the grant, gives the new one. */
  readonly grant_url?: string
}

/** What humans are shown, on the socket and with a token. Below `agent_says` nothing is verified. */
export interface AccessRequestView extends Wanted {
  readonly id: string
  readonly state: AccessState
  readonly agent: string
  readonly agent_owner: string
  readonly agent_purpose: string
  readonly risk_tier: string
  readonly attested: boolean
  readonly human: { readonly iss: string; readonly sub: string }
  readonly task: string
  readonly grant: string
  readonly lineage: readonly string[]
  readonly created_at: number
  readonly expires_at: number
  readonly agent_says: { readonly reason: string; readonly intent: string; readonly event?: string }
  /** What the agent asked for, where a human changed it. */
  readonly asked?: Wanted
  readonly decided_by?: { readonly iss: string; readonly sub: string; readonly at: number; readonly via: string }
}

export function accessRequestView(view: AccessView): AccessRequestView {
  const { agent, decidedBy, asked } = view
  return {
    id: view.id,
    state: view.state,
    ...view.wanted,
    agent: agent.id,
    agent_owner: agent.owner,
    agent_purpose: agent.purpose,
    risk_tier: agent.riskTier,
    attested: view.isAttested,
    human: view.human,
    task: view.task.id,
    grant: view.grant,
    lineage: view.lineage.map(({ id }) => id),
    created_at: view.createdAt,
    expires_at: view.expiresAt,
    agent_says: view.agentSays,
    ...(asked && { asked }),
    ...(decidedBy && { decided_by: { ...decidedBy.human, at: decidedBy.at, via: decidedBy.via } }),
  }
}
