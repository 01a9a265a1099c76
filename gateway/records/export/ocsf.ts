/**
 * OCSF 1.9 (schema.ocsf.io): an entry is an event of the class that fits its kind, with the profiles `trace`, `ai_operation`,
 * `security_control` and `record_integrity`. `metadata.uid` is the id of the entry; the human is the actor's user, the agent and
 * the grant it acts under are `ai_agent` and `delegation`; the whole chain, for which OCSF has no place, is in `unmapped`.
 */
import { hash } from 'node:crypto'
import canonicalize from 'canonicalize'
import type { JsonValue } from '../../audit/canonical.ts'
import { VERSION } from '../../version.ts'
import { agentOf, callOf, nameOf, scopesOf, spanIdOf, traceOf } from './call.ts'
import type { Item } from './item.ts'
import { classified, PROFILES } from './ocsf-class.ts'

const OCSF_VERSION = '1.9.0'

type Members = Record<string, JsonValue | undefined>

export function ocsfRow(item: Item): string {
  const { entry, proven } = item
  const { class_uid, activity_id, ...own } = classified(item)
  const profiles: readonly string[] = PROFILES[class_uid]
  const event: Members = {
    ...own,
    class_uid,
    category_uid: Math.floor(class_uid / 1000),
    activity_id,
    type_uid: class_uid * 100 + activity_id,
    time: Date.parse(entry.ts),
    metadata: metadataOf(item, proven ? [...profiles, 'record_integrity'] : profiles),
    ...(profiles.includes('ai_operation') && { ai_agent: aiAgentOf(item), delegation: delegationOf(item) }),
    ...(profiles.includes('trace') && { trace: traceObject(item) }),
    unmapped: {
      // The entry is proven by this leaf of the log (RFC 9162), whatever becomes of this event.
      log: { origin: entry.log, seq: entry.seq, leaf_sha256: proven?.leaf },
      lineage: entry.lineage as unknown as JsonValue,
      lineage_hash: entry.lineage_hash,
      task: entry.task && { ...entry.task },
      decision: (entry.decision ?? item.decision?.decision) as unknown as JsonValue,
      cred: entry.cred && { ...entry.cred },
      facts: entry.facts,
    },
  }
  return JSON.stringify(proven ? { ...event, attestation_list: [attestationOf(item, event)] } : event)
}

function metadataOf({ uid, entry }: Item, profiles: readonly string[]): Members {
  return {
    version: OCSF_VERSION,
    product: { name: 'Keyless', vendor_name: 'Keyless', version: entry.gw?.ver ?? VERSION },
    profiles,
    uid,
    event_code: entry.kind,
    correlation_uid: entry.req,
    log_name: entry.log,
    log_version: entry.v,
    logged_time: Date.parse(entry.ts),
    original_time: entry.ts,
    sequence: entry.seq,
    tenant_uid: entry.tenant,
  }
}

function aiAgentOf({ entry }: Item): Members | undefined {
  const agent = agentOf(entry)
  return agent && { uid: agent.id, name: nameOf(agent.id), type_id: 0, instance_uid: entry.grant?.instance }
}

function delegationOf({ entry }: Item): Members | undefined {
  const { grant } = entry
  const agent = agentOf(entry)
  const uid = grant?.id ?? agent?.grant
  if (uid === undefined) return undefined
  return {
    uid,
    parent_uid: grant ? grant.parent : agent?.parent,
    issuer_uid: entry.log,
    created_time: grant?.issued === undefined ? undefined : grant.issued * 1000,
    expiration_time: grant?.expires === undefined ? undefined : grant.expires * 1000,
    scopes: grant && scopesOf(entry),
  }
}

function traceObject(item: Item): Members | undefined {
  const trace = traceOf(item.entry)
  if (!trace) return undefined
  const { startMs, endMs, target } = callOf(item)
  const span = { uid: spanIdOf(item.entry), parent_uid: trace.parent, operation: target?.operation }
  return { uid: trace.id, span: { ...span, start_time: startMs, end_time: endMs } }
}

/**
 * The fingerprint is over the canonical event (RFC 8785) with this attestation and without the fingerprint. The chain is the log:
 * its order and completeness are proven there, by `unmapped.log` and a signed checkpoint.
 */
function attestationOf({ uid, entry }: Item, event: Members): Members {
  const attestation = { uid, authority_uid: entry.log, chain_uid: entry.log }
  // By way of JSON, because members without a value are not part of what is sent.
  const sent: JsonValue = JSON.parse(JSON.stringify({ ...event, attestation_list: [attestation] }))
  const value = hash('sha256', canonicalize(sent) ?? '', 'hex')
  return { ...attestation, fingerprint: { algorithm: 'SHA-256', algorithm_id: 3, value } }
}
