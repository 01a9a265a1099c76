/** Kind of entry → OCSF class, activity and the members that only this class has. */

import { isIP } from 'node:net'
import type { JsonValue } from '../../audit/canonical.ts'
import { agentOf, type Call, callOf, nameOf, scopesOf } from './call.ts'
import type { Item } from './item.ts'
import { FINDINGS } from './ocsf-finding.ts'

export interface Classified {
  readonly class_uid: keyof typeof PROFILES
  readonly activity_id: number
  readonly severity_id: number
  readonly [member: string]: JsonValue | undefined
}

/** Profiles that each class may have and these events use, besides `record_integrity`, which all may have. */
export const PROFILES = {
  6003: ['trace', 'ai_operation', 'security_control'],
  3003: ['ai_operation', 'security_control'],
  3004: ['ai_operation'],
  3005: ['ai_operation', 'security_control'],
  2004: ['host'],
  0: [],
} as const

const API_ACTIVITY = 6003
const AUTHORIZE_SESSION = 3003
const USER_ACCESS = 3005
const ENTITY_MANAGEMENT = 3004
const DETECTION_FINDING = 2004
const BASE_EVENT = 0
const OTHER = 99

const Severity = { informational: 1, low: 2, medium: 3, high: 4 } as const
const [SUCCESS, FAILURE] = [1, 2] as const
const NOTABLE: ReadonlySet<string> = new Set(['log.recovered', 'log.clock_set_back'])

/** What happens to the thing that an entry is about → activity of Entity Management. */
const MANAGED: Readonly<Record<string, { readonly type: string; readonly activity: number }>> = {
  'lease.issued': { type: 'Credential', activity: 1 },
  'lease.captured': { type: 'Credential', activity: 1 },
  'lease.renewed': { type: 'Credential', activity: 3 },
  'lease.revoked': { type: 'Credential', activity: 4 },
  'task.suspended': { type: 'Task', activity: 12 },
  'task.step_completed': { type: 'Task', activity: 3 },
  'policy.loaded': { type: 'Policy set', activity: 10 },
  'settings.loaded': { type: 'Settings', activity: 10 },
  'log.key_rotated': { type: 'Log key', activity: 3 },
}

export function classified(item: Item): Classified {
  const { kind } = item.entry
  if (kind === 'call.decision' || kind === 'call.outcome') return apiActivity(item)
  if (kind === 'grant.revoked') return revoked(item)
  if (kind.startsWith('grant.')) return authorized(item)
  if (kind in FINDINGS) return finding(item)
  const managed = MANAGED[kind]
  if (managed) return { ...entityOf(item, managed), class_uid: ENTITY_MANAGEMENT, activity_id: managed.activity }
  return {
    class_uid: BASE_EVENT,
    activity_id: OTHER,
    activity_name: kind,
    severity_id: NOTABLE.has(kind) ? Severity.medium : Severity.informational,
    message: kind,
  }
}

/** Those that OCSF has a name for; of others, `activity_name` tells. */
const METHODS: ReadonlySet<string> = new Set('OPTIONS GET HEAD POST PUT DELETE TRACE CONNECT PATCH'.split(' '))
const CRUD: Readonly<Record<string, number>> = {
  POST: 1,
  GET: 2,
  HEAD: 2,
  OPTIONS: 2,
  QUERY: 2,
  PUT: 3,
  PATCH: 3,
  DELETE: 4,
}

function apiActivity(item: Item): Classified {
  const { entry } = item
  const call = callOf(item)
  const { target, client, isDenied } = call
  const method = target?.method ?? ''
  const activity = CRUD[method] ?? OTHER
  return {
    class_uid: API_ACTIVITY,
    activity_id: activity,
    ...(activity === OTHER && { activity_name: method || 'unknown' }),
    severity_id: isDenied ? Severity.medium : call.hasFailed ? Severity.low : Severity.informational,
    ...statusOf(call),
    actor: actorOf(item),
    api: apiOf(item, call),
    src_endpoint: sourceOf(client),
    dst_endpoint: target && { hostname: target.host, port: target.port },
    http_request: httpRequest(item, call),
    ...(entry.outcome && ended(entry.outcome, call)),
    ...controlled(item, isDenied),
    message: `${isDenied ? 'denied' : entry.outcome ? 'ended' : 'allowed'}: ${method} ${call.url ?? ''}`.trimEnd(),
  }
}

/** A masked or sealed address is none any more, and yet equal to itself. */
function sourceOf(client: Call['client']) {
  if (!client) return { name: 'unknown' }
  return isIP(client.ip) > 0 ? { ip: client.ip } : { uid: client.ip }
}

function apiOf({ entry: { req } }: Item, { target, status, error }: Call) {
  return {
    operation: target?.operation ?? (target?.method || 'unknown'),
    service: target?.service === undefined ? undefined : { name: target.service },
    request: req === undefined ? undefined : { uid: req },
    response: status === undefined ? undefined : { code: status, error },
  }
}

function ended(outcome: NonNullable<Item['entry']['outcome']>, { startMs, endMs }: Call) {
  return {
    http_response: { code: outcome.status, body_length: outcome.bytes_in, latency: Math.round(outcome.dur_ms) },
    start_time: startMs,
    end_time: endMs,
    duration: endMs - startMs,
  }
}

function statusOf({ status, error, isDenied, hasFailed }: Call) {
  if (status === undefined && !isDenied) return {}
  return {
    status_id: hasFailed ? FAILURE : SUCCESS,
    status_code: status === undefined ? undefined : String(status),
    status_detail: error,
  }
}

function httpRequest({ entry }: Item, { target, client, url }: Call) {
  if (!target) return undefined
  const { scheme, host, port, path, method } = target
  return {
    ...(METHODS.has(method) && { http_method: method }),
    url: { scheme, hostname: host, port, path, url_string: url },
    user_agent: client?.ua,
    body_length: entry.outcome?.bytes_out,
  }
}

/** Profile security_control: what the gateway did with the call, under which policies. */
function controlled({ entry, decision }: Item, isDenied: boolean) {
  const policies = (entry.decision ?? decision?.decision)?.policy_ids ?? []
  return {
    action_id: isDenied ? 2 : 1,
    disposition_id: isDenied ? 2 : 1,
    authorizations: policies.map((uid) => ({
      decision: isDenied ? 'deny' : 'allow',
      policy: { uid },
    })),
  }
}

function actorOf({ entry }: Item) {
  const { human, task } = entry
  return {
    user: human ? { uid: human.sub, name: human.sub, domain: human.iss, type_id: 1 } : { name: 'unknown', type_id: 0 }, // before authentication nobody is known
    session: task && { uid: task.id },
  }
}

/** A session of an agent gets its privileges; or was refused them. */
function authorized(item: Item): Classified {
  const { kind, decision, grant, req, log } = item.entry
  const hasFailed = kind === 'grant.denied' || kind === 'grant.failed'
  return {
    class_uid: AUTHORIZE_SESSION,
    activity_id: 1,
    severity_id: hasFailed ? Severity.medium : Severity.informational,
    status_id: hasFailed ? FAILURE : SUCCESS,
    status_code: decision?.code,
    status_detail: decision?.detail,
    ...privileged(item),
    session: { uid: grant?.id ?? req, issuer: log, ...lifeOf(item) },
    ...controlled(item, hasFailed),
    message: kind,
  }
}

function revoked(item: Item): Classified {
  return {
    class_uid: USER_ACCESS,
    activity_id: 2,
    severity_id: Severity.informational,
    status_id: SUCCESS,
    ...privileged(item),
    ...controlled(item, false),
    message: item.entry.kind,
  }
}

function lifeOf({ entry: { grant } }: Item) {
  return {
    created_time: grant?.issued === undefined ? undefined : grant.issued * 1000,
    expiration_time: grant?.expires === undefined ? undefined : grant.expires * 1000,
  }
}

/** The agent is the user who gets the privileges; the human is the actor who gives them. */
function privileged(item: Item) {
  const agent = agentOf(item.entry)
  const privileges = scopesOf(item.entry)
  return {
    user: agent ? { uid: agent.id, name: nameOf(agent.id), type_id: 4 } : { name: 'unknown', type_id: 0 },
    privileges: privileges.length > 0 ? privileges : ['none'],
    actor: actorOf(item),
  }
}

function entityOf(item: Item, { type }: { readonly type: string }) {
  const { kind, facts = {}, grant, task } = item.entry
  const texts = [facts.cred_id, facts.credential, facts.policy_set, grant?.id, task?.id, facts.digest]
  const [uid = kind, name] = texts.filter((text) => typeof text === 'string')
  return {
    severity_id: Severity.informational,
    status_id: facts.outcome === 'failed' ? FAILURE : SUCCESS,
    actor: actorOf(item),
    entity: { uid, ...(name !== undefined && { name }), type, type_id: 99 },
    message: kind,
  }
}

/** What may be an attack. A technique of MITRE ATLAS is what an attacker would be doing, not a proof that one is there. */
function finding(item: Item): Classified {
  const { kind, facts = {} } = item.entry
  const { title, technique } = FINDINGS[kind] ?? { title: kind }
  const isUrgent = facts.fate === 'standing' || facts.action === 'alert' || kind === 'leak.canary_used'
  return {
    class_uid: DETECTION_FINDING,
    activity_id: 1,
    severity_id: isUrgent ? Severity.high : Severity.medium,
    status_id: 1,
    finding_info: {
      uid: item.uid,
      title,
      types: [kind],
      created_time: Date.parse(item.entry.ts),
      ...(technique && { attacks: [{ technique: { uid: technique[0], name: technique[1] } }] }),
    },
    actor: actorOf(item),
    message: title,
  }
}
