/** Who gave a grant: every hop from the human on, with the policies that allowed it, the attestation, and how somebody proved to be it. */
import type { Database } from './database.ts'
import { above, byId, type Granted, type Ref } from './granted.ts'
import type { Inquiry } from './inquiry.ts'

export interface Hop {
  readonly grant: string
  readonly entry: Ref
  readonly ts: number
  /** Human or agent who gave it, and the agent that got it. */
  readonly from: string | null
  readonly to: string | null
  readonly task: string | null
  readonly purpose: string | null
  readonly policies: readonly string[]
  readonly policy_set: string | null
  /** `signed`: by the delegator's own key. `gateway`: attested for a holder without one. `human`: the first hop. */
  readonly attested_by: 'human' | 'signed' | 'gateway'
  /** SHA-256 of the attestation. */
  readonly attestation: string | null
  /** How the human proved to be it, as far as their issuer says. */
  readonly proof: Readonly<Record<string, unknown>> | null
  /** What the agent proved itself by; null when it was only named. */
  readonly workload: Readonly<Record<string, unknown>> | null
}

/** Chains of more grants than this are not spelled out. */
const CHAINS_SHOWN = 20

interface DetailRow {
  readonly log: string
  readonly seq: number
  readonly detail: string | null
}

/** Every grant once, oldest first. */
export async function grantorsOf(database: Database, { grants, parents }: Inquiry): Promise<Hop[]> {
  const known = byId([...parents, ...grants])
  const shown = grants.slice(0, CHAINS_SHOWN).flatMap((one) => [...above(known, one.id), one])
  const unique = [...byId(shown).values()].toSorted((a, b) => a.issued - b.issued || a.depth - b.depth)
  const hops: Hop[] = []
  for (const one of unique) hops.push(await hopOf(database, one, known))
  return hops
}

async function hopOf(database: Database, one: Granted, known: ReadonlyMap<string, Granted>): Promise<Hop> {
  const detail = await detailOf(database, one)
  const facts = objectIn(detail.facts)
  const attestation = typeof facts.attestation === 'string' ? facts.attestation : null
  const isRoot = one.depth === 0
  return {
    grant: one.id,
    entry: one.entry,
    ts: one.issued,
    from: isRoot ? one.human : (known.get(one.parent ?? '')?.agent ?? null),
    to: one.agent,
    task: one.task,
    purpose: one.purpose,
    policies: one.policy_ids,
    policy_set: one.policy_set,
    attested_by: isRoot ? 'human' : attestation === null ? 'gateway' : 'signed',
    attestation,
    proof: isRoot ? proofIn(one, objectIn(detail.human)) : null,
    workload: one.workload,
  }
}

/** A human of the local socket proved nothing but that they own it. */
function proofIn({ human_iss: iss }: Granted, human: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const { auth_time, amr, acr } = human
  return JSON.parse(JSON.stringify({ iss, auth_time, amr, acr }))
}

async function detailOf(database: Database, { entry }: Granted): Promise<Readonly<Record<string, unknown>>> {
  const at = entry.lastIndexOf(':')
  const [row] = await database.all<DetailRow>('SELECT log, seq, detail FROM records WHERE log = ? AND seq = ?', [
    entry.slice(0, at),
    Number(entry.slice(at + 1)),
  ])
  return objectIn(row?.detail ? JSON.parse(row.detail) : undefined)
}

function objectIn(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {}
}
