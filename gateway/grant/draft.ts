/**
 * A root grant as asked for by `task.open`, complete and checked, before anything has happened. Whatever is too wide, too long
 * or unknown is refused with the bound or the known names; nothing is cut silently.
 */
import { parseScope } from '../protocol/authority.ts'
import type { Agent, Grant } from '../protocol/grant.ts'
import { uuidv7 } from '../protocol/id.ts'
import type { Instruction } from '../protocol/instruction.ts'
import { GatewayError } from '../protocol/problem.ts'
import { lineageHash, rootLineage } from './lineage.ts'

const PURPOSE_LIMIT = 500
const SCOPE_LIMIT = 4096
/** Grants that may stand below one another, unless settings or the request say less (LG/1 §1.6: 8 hops). */
const MAX_DEPTH = 3

interface Bounds {
  readonly agents: ReadonlyMap<string, Agent>
  knowsOperation(pattern: string): boolean
  readonly defaultTtlS: number
  readonly maxTtlS: number
  readonly nowMs: number
}

/** @throws {GatewayError} `agent_unknown`, `invalid_scope`, `instruction_invalid` */
export function draftGrant(i: Extract<Instruction, { kind: 'task.open' }>, bounds: Bounds): Grant {
  const agent = agentOf(i.agent, bounds.agents)
  checkPurpose(i.purpose)
  const ttlS = i.request.ttlS ?? bounds.defaultTtlS
  checkTtl(ttlS, bounds.maxTtlS)
  const authority = authorityOf(i.request.scope ?? '', bounds)
  const id = uuidv7(bounds.nowMs)
  const issuedAt = Math.floor(bounds.nowMs / 1000)
  const lineage = rootLineage(i.human, agent.id, id)
  return {
    id,
    tenant: i.tenant,
    human: i.human,
    agent,
    task: { id: `task_${uuidv7(bounds.nowMs)}`, purpose: i.purpose },
    authority,
    issuedAt,
    expiresAt: issuedAt + ttlS,
    lineage,
    lineageHash: lineageHash(lineage),
    depth: 0,
    maxDepth: MAX_DEPTH,
    delegable: true,
    ancestry: [],
    attestations: [],
  }
}

function agentOf(id: string, agents: ReadonlyMap<string, Agent>): Agent {
  const agent = agents.get(id)
  if (agent !== undefined) return agent
  const known = [...agents.keys()]
  const list = known.length === 0 ? 'none is registered' : `registered: ${known.join(', ')}`
  throw new GatewayError(
    'agent_unknown',
    `The agent ${quote(id)} is not registered (${list}). Name one of these, or add it to \`agents\` in the settings.`,
  )
}

/** It is shown to people and written into records: one line that means what it looks like. */
function checkPurpose(purpose: string): void {
  const length = [...purpose].length
  if (length > PURPOSE_LIMIT) throw invalid(`purpose has ${length} characters; allowed are 1 to ${PURPOSE_LIMIT}`)
  if (purpose.trim() === '') throw invalid('purpose is empty; say in 1 to 500 characters what the task is for')
  if (!purpose.isWellFormed()) throw invalid('purpose is not well-formed Unicode: it holds half of a surrogate pair')
  // Control characters, line separators and direction marks can make a record read as something it is not.
  if (/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/u.test(purpose)) {
    throw invalid('purpose holds a control character, a line break or a direction mark; write one line of plain text')
  }
}

function checkTtl(ttlS: number, maxTtlS: number): void {
  if (Number.isSafeInteger(ttlS) && ttlS >= 1 && ttlS <= maxTtlS) return
  throw invalid(
    `a lifetime of ${ttlS} s was asked for; allowed are 1 to ${maxTtlS} s (\`grants.max_ttl_s\` in the settings)`,
  )
}

function authorityOf(scope: string, bounds: Bounds): Grant['authority'] {
  if (scope.length > SCOPE_LIMIT) {
    throw new GatewayError(
      'invalid_scope',
      `The scope has ${scope.length} characters; at most ${SCOPE_LIMIT} are allowed. Use patterns such as github:issues.*`,
    )
  }
  const authority = parseScope(scope)
  const unknown = authority.flatMap(({ operations }) => operations).filter((pattern) => !bounds.knowsOperation(pattern))
  if (authority.length > 0 && unknown.length === 0) return authority
  const which = unknown.map(quote).join(', ')
  throw new GatewayError(
    'invalid_scope',
    unknown.length === 0
      ? 'The scope names no operation. Name at least one, such as github:issues.read'
      : `The catalogue has no operation under ${which}. Check the spelling against the service's file (shipped ones: policies/services), and that the service is listed under \`services\` in the settings.`,
  )
}

function quote(text: string): string {
  return JSON.stringify(text.length > 100 ? `${text.slice(0, 100)}…` : text)
}

function invalid(what: string): GatewayError {
  return new GatewayError('instruction_invalid', `${what}.`)
}
