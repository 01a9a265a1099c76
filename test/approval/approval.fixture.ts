/** Approvals as tests make them. */
import { createSecretKey } from 'node:crypto'
import type { Leaving, Subject } from '../../gateway/approval/fingerprint.ts'
import { requestForm } from '../../gateway/approval/fingerprint.ts'
import type { ApprovalRecord } from '../../gateway/approval/record.ts'
import type { ApprovalTerms } from '../../gateway/protocol/approval.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'

export const KEY = createSecretKey(Buffer.alloc(32, 7))

export const GRANT: Grant = {
  id: '019a0000-0000-7000-8000-000000000001',
  tenant: 'acme',
  human: { iss: 'https://id.acme.test', sub: 'ana' },
  agent: { id: 'spiffe://acme.test/lead', owner: 'ana', purpose: 'test', riskTier: 'low' },
  task: { id: 'task_1', purpose: 'write a note' },
  authority: [{ operations: ['notes:*'] }],
  issuedAt: 0,
  expiresAt: 4_000_000_000,
  lineage: [
    { n: 0, type: 'human', id: 'https://id.acme.test#ana' },
    { n: 1, type: 'ai_agent', id: 'spiffe://acme.test/lead', grant: '019a0000-0000-7000-8000-000000000001' },
  ],
  lineageHash: '',
  depth: 0,
  maxDepth: 0,
  delegable: false,
  ancestry: [],
  attestations: [],
}

export const TERMS: ApprovalTerms = { from: ['on-call'], count: 1, reuseS: undefined, fields: [] }

export const REQUEST: Leaving = {
  method: 'POST',
  scheme: 'https',
  host: 'notes.keyless.test',
  port: 443,
  path: '/notes/1?state=open',
  headers: ['Host', 'notes.keyless.test', 'Content-Type', 'application/json', 'X-Account', '7'],
  body: undefined,
  isUpgrade: false,
}

export function subject(
  o: {
    grant?: Partial<Grant>
    terms?: Partial<ApprovalTerms>
    request?: Partial<Leaving>
    body?: string | null
    operation?: string
  } = {},
): Subject {
  const terms = { ...TERMS, ...o.terms }
  return {
    grant: { ...GRANT, ...o.grant },
    terms,
    operation: o.operation ?? 'notes:write',
    what: requestForm({ ...REQUEST, ...o.request }, terms, o.body === undefined ? 'hash' : o.body),
  }
}

export function record(nowMs: number, changes: Partial<ApprovalRecord> = {}): ApprovalRecord {
  const { human, agent, task, lineage } = GRANT
  return {
    id: uuidv7(nowMs),
    tenant: 'acme',
    fingerprint: `hmac:${uuidv7()}`,
    holding: GRANT.id,
    facts: {
      ...{ human, agent, task: { id: task.id }, grant: GRANT.id, lineage, isAttested: false },
      ...{ operation: 'notes:write', access: 'write', sensitivity: 'internal', isIrreversible: false },
    },
    agentSays: { intent: task.purpose },
    terms: TERMS,
    consents: [],
    state: 'pending',
    createdMs: nowMs,
    untilMs: nowMs + 300_000,
    version: 0,
    ...changes,
  }
}
