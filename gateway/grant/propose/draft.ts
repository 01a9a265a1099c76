/** Drafts of grants: who, for whom, for which task, on which terms. Nothing has happened yet, and nothing is signed. */
import type { Agent, Confirmation, Grant, Human, Task, WorkloadEvidence } from '../../protocol/grant.ts'
import { uuidv7 } from '../../protocol/id.ts'
import type { Workload } from '../../protocol/identity.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { ancestryBelow, childLineage, lineageHash, rootLineage } from '../chain/lineage.ts'
import { invalid, quote, type Terms } from '../terms.ts'

const PURPOSE_LIMIT = 500
/** A refusal is short, however many agents there are. */
const KNOWN_SHOWN = 8

export interface Root {
  readonly tenant: string
  readonly human: Human
  readonly agent: Agent
  readonly task: Task
  readonly cnf?: Confirmation | undefined
  /** Epoch seconds: end of the certificate that it is bound to. */
  readonly until?: number | undefined
  /** Proved who it is; absent when the human merely named the agent. */
  readonly workload?: Workload | undefined
}

export function draftRoot(
  { tenant, human, agent, task, cnf, until, workload }: Root,
  terms: Terms,
  nowMs: number,
): Grant {
  const id = uuidv7(nowMs)
  const lineage = rootLineage(human, agent.id, id)
  return {
    id,
    tenant,
    human,
    agent,
    task,
    lineage,
    lineageHash: lineageHash(lineage),
    depth: 0,
    ancestry: [],
    attestations: [],
    ...evidence(cnf, workload),
    ...ending(terms, until),
  }
}

export interface Child {
  readonly parent: Grant
  readonly agent: Agent
  readonly cnf?: Confirmation | undefined
  readonly until?: number | undefined
  readonly workload?: Workload | undefined
  /** The gateway attests the delegation for a holder without a key. */
  readonly onBehalf: boolean
  /** Default: a new one. */
  readonly id?: string | undefined
}

/** Its attestations are the parent's: the one of this hop is added by whoever makes or has checked it. */
export function draftChild(
  { parent, agent, cnf, until, workload, onBehalf, id: given }: Child,
  terms: Terms,
  nowMs: number,
): Grant {
  const id = given ?? uuidv7(nowMs)
  const lineage = childLineage(parent, agent.id, id, onBehalf)
  return {
    id,
    tenant: parent.tenant,
    human: parent.human,
    agent,
    task: parent.task,
    lineage,
    lineageHash: lineageHash(lineage),
    depth: parent.depth + 1,
    ancestry: ancestryBelow(parent),
    attestations: parent.attestations,
    ...(parent.signedHash !== undefined && { parentHash: parent.signedHash }),
    ...evidence(cnf, workload),
    ...ending(terms, until),
  }
}

/** At use only its key is proved: a certificate that has run out by then would be looked at by nobody. */
function ending(terms: Terms, until: number = terms.expiresAt): Terms {
  if (until > terms.issuedAt) return { ...terms, expiresAt: Math.min(terms.expiresAt, until) }
  throw new GatewayError('client_invalid', 'The certificate that the grant would be bound to has run out. Renew it.')
}

function evidence(cnf: Confirmation | undefined, workload: Workload | undefined) {
  return {
    ...(cnf !== undefined && { cnf }),
    ...(workload?.instance !== undefined && { instance: workload.instance }),
    ...(workload !== undefined && { attested: true, workload: evidenceOf(workload) }),
  }
}

function evidenceOf({ kind, issuer, attributes }: Workload): WorkloadEvidence {
  return { kind, issuer, attributes }
}

/** @throws {GatewayError} `agent_unknown` naming some that are registered. */
export function registered(id: string, agents: ReadonlyMap<string, Agent>): Agent {
  const agent = agents.get(id)
  if (agent !== undefined) return agent
  const known = [...agents.keys()]
  const more = known.length > KNOWN_SHOWN ? ` and ${known.length - KNOWN_SHOWN} more` : ''
  const list =
    known.length === 0 ? 'none is registered' : `registered: ${known.slice(0, KNOWN_SHOWN).join(', ')}${more}`
  throw new GatewayError(
    'agent_unknown',
    `The agent ${quote(id)} is not registered (${list}). Name one of these, or add it to \`agents\` in the settings.`,
  )
}

/** It is shown to people and written into records: one line that means what it looks like. @throws {GatewayError} `instruction_invalid` */
export function checkPurpose(purpose: string | undefined): asserts purpose is string {
  if (purpose === undefined) throw invalid('purpose is missing; say in 1 to 500 characters what the task is for')
  const length = [...purpose].length
  if (length > PURPOSE_LIMIT) throw invalid(`purpose has ${length} characters; allowed are 1 to ${PURPOSE_LIMIT}`)
  if (purpose.trim() === '') throw invalid('purpose is empty; say in 1 to 500 characters what the task is for')
  if (!purpose.isWellFormed()) throw invalid('purpose is not well-formed Unicode: it holds half of a surrogate pair')
  // Control characters, line separators and direction marks can make a record read as something it is not.
  if (/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/u.test(purpose)) {
    throw invalid('purpose holds a control character, a line break or a direction mark; write one line of plain text')
  }
}
