/**
 * What an instruction asked for, as its refusal records it. Nothing here is verified, and nothing here may be a secret: of tokens
 * only the kind is told, and a parent or grant is named only when it is an id.
 */
import type { Authority, Human } from '../../protocol/grant.ts'
import { isUuidv7 } from '../../protocol/id.ts'
import type { ClientEvidence } from '../../protocol/identity.ts'
import type { Enquiry, GrantRequest, Instruction } from '../../protocol/instruction.ts'
import type { JsonValue } from '../canonical.ts'
import type { Fields } from './authority.ts'

/** Who gives the instruction, as far as the door knows; a token that was presented is not read here. */
export function humanOf(instruction: Instruction | Enquiry): Human | undefined {
  if ('human' in instruction) return instruction.human
  if (!('by' in instruction)) return undefined
  if ('human' in instruction.by) return instruction.by.human
  return 'holder' in instruction.by ? instruction.by.holder.human : undefined
}

export function askedBy(instruction: Instruction | Enquiry): Fields {
  switch (instruction.kind) {
    case 'task.open':
      return { agent: instruction.agent, ...intended(instruction), ...requested(instruction.request) }
    case 'grant.request':
      return tokenRequest(instruction)
    case 'grant.delegate':
      return { agent: instruction.agent, parent: idOnly(instruction.parent), ...requested(instruction.request) }
    case 'grant.present':
      return {}
    case 'grant.introspect':
      return mandate(instruction.by)
    case 'unread':
      return { route: instruction.route }
    case 'grant.revoke':
      return { grant: idOnly(instruction.token), ...mandate(instruction.by) }
    case 'task.complete':
      return { task: instruction.task, reason: instruction.reason, ...mandate(instruction.by) }
    case 'task.intent': {
      const { task, request, by } = instruction
      return { task, ...intended(instruction), ...requested(request), ...mandate(by) }
    }
    case 'task.step_complete':
      return { task: instruction.task, step: instruction.step, ...mandate(instruction.by) }
    case 'task.heartbeat':
    case 'task.suspend':
      return { task: instruction.task, ...mandate(instruction.by) }
    case 'task.renew':
    case 'task.resume':
      return { task: instruction.task, ttl_s: instruction.ttlS, ...mandate(instruction.by) }
    default:
      return instruction satisfies never
  }
}

function tokenRequest(instruction: Extract<Instruction, { kind: 'grant.request' }>): Fields {
  const { grantType, client, jkt, subject, actor, requestedActor, attestation, request } = instruction
  return {
    grant_type: grantType,
    ...evidence(client),
    jkt,
    subject: subject?.type,
    actor: actor?.type,
    requested_actor: cut(requestedActor),
    attested: attestation !== undefined,
    ...intended(instruction),
    ...requested(request),
  }
}

function intended({ purpose, plan }: { readonly purpose?: string; readonly plan?: readonly string[] }): Fields {
  return { purpose: cut(purpose), plan: texts(plan) }
}

function requested(request: GrantRequest): Fields {
  const { scope, details, ttlS, allowNarrowing, preset, trace, delegable, maxDepth, step, cnf, isCertificateBound } =
    request
  return {
    scope: cut(scope),
    authorization_details: outline(details),
    ttl_s: ttlS,
    allow_narrowing: allowNarrowing,
    preset,
    trace,
    delegable,
    max_depth: maxDepth,
    step,
    cnf: cnf && { ...cnf },
    certificate_bound: isCertificateBound,
  }
}

const LISTS = ['operations', 'actions', 'locations', 'paths'] as const satisfies readonly (keyof Authority)[]

/** Nobody need have proved anything to be refused, and the log keeps every refusal for good: what is asked fills no disk. */
const TEXT_LIMIT = 1024
const OUTLINE_LIMIT = 4096

function cut(text: string | undefined): string | undefined {
  return text !== undefined && text.length > TEXT_LIMIT ? `${text.slice(0, TEXT_LIMIT)}…` : text
}

/** The members that say what may be done; of anything else that was sent there is only the name. */
function outline(details: unknown): JsonValue | undefined {
  if (details === undefined) return undefined
  if (!Array.isArray(details)) return typeof details
  let left = OUTLINE_LIMIT
  const told: JsonValue[] = []
  for (const entry of details) {
    const outlined = outlineOf(entry)
    left -= JSON.stringify(outlined).length
    if (left < 0) return [...told, `${details.length - told.length} more`]
    told.push(outlined)
  }
  return told
}

function outlineOf(entry: unknown): JsonValue {
  if (typeof entry !== 'object' || entry === null) return typeof entry
  const members = entry as Partial<Record<string, unknown>>
  const lists = LISTS.map((name) => [name, texts(members[name])] as const).filter(([, list]) => list !== undefined)
  return { ...Object.fromEntries(lists), members: Object.keys(members).slice(0, 32) }
}

function texts(list: unknown): string[] | undefined {
  return Array.isArray(list) ? list.slice(0, 256).map((one) => (typeof one === 'string' ? one : typeof one)) : undefined
}

type By = Extract<Instruction, { by: unknown }>['by']

function mandate(by: By): Fields {
  if ('holder' in by) return { holder: by.holder.id }
  return 'client' in by ? evidence(by.client) : {}
}

function evidence({ clientId, assertion, certificates, dpop }: ClientEvidence): Fields {
  const kinds = [assertion?.type, certificates && 'certificate', dpop && 'dpop'].filter((kind) => kind !== undefined)
  return { client_id: cut(clientId), evidence: kinds }
}

/** A handle and a signed grant are secrets; ids are UUIDs. */
function idOnly(text: string): string | undefined {
  return isUuidv7(text) ? text : undefined
}
