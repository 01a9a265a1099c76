/**
 * The Cedar call made of the attributes that a slice reads. The others are the same stand-in for every request, so the call is
 * a function of the values read.
 */
import type { CedarValueJson, EntityJson } from '@cedar-policy/cedar-wasm/nodejs'
import type { Ask } from '../protocol/decision.ts'
import type { Operation } from '../protocol/service.ts'
import { type GrantAsk, type Selection, valuesOf } from './attributes.ts'
import { PAST, PAST_NAME } from './attributes-call.ts'

export interface Question {
  readonly principal: { readonly type: string; readonly id: string }
  readonly action: { readonly type: string; readonly id: string }
  readonly resource: { readonly type: string; readonly id: string }
  readonly context: Record<string, CedarValueJson>
  readonly entities: EntityJson[]
}

export function callQuestion(selection: Selection<Ask>, ask: Ask, operation: Operation): Question {
  const values = valuesOf(selection, ask)
  const resource = { type: 'Endpoint', id: operation.name }
  const endpoint: EntityJson = {
    uid: resource,
    attrs: {
      ...under('resource.', values),
      access: operation.access,
      sensitivity: operation.sensitivity,
      returns_secret: operation.returnsSecret,
      irreversible: operation.irreversible,
      labels: [...(operation.labels ?? [])],
    },
    parents: [{ type: 'Service', id: operation.name.slice(0, operation.name.indexOf(':')) }],
    tags: tagsOf('resource', values),
  }
  return questionOf(operation.name, resource, values, [endpoint, ...pastOf(selection, ask)])
}

/** Only where a policy reads it: the counts by operation. */
function pastOf(selection: Selection<Ask>, ask: Ask): EntityJson[] {
  if (!selection.names.includes(PAST_NAME)) return []
  const counts = selection.table[PAST_NAME]?.read(ask) ?? {}
  return [{ uid: PAST, attrs: {}, parents: [], tags: counts as Record<string, CedarValueJson> }]
}

export function grantQuestion(selection: Selection<GrantAsk>, ask: GrantAsk): Question {
  return questionOf(ask.action, { type: 'Service', id: ask.service }, valuesOf(selection, ask), [])
}

function questionOf(
  action: string,
  resource: Question['resource'],
  values: Map<string, CedarValueJson>,
  entities: EntityJson[],
): Question {
  const principal = { type: 'Agent', id: String(values.get('principal')) }
  const agent: EntityJson = {
    uid: principal,
    attrs: under('principal.', values),
    parents: [],
    tags: tagsOf('principal', values),
  }
  return {
    principal,
    action: { type: 'Action', id: action },
    resource,
    context: under('context.', values),
    entities: [agent, ...entities],
  }
}

function tagsOf(variable: string, values: Map<string, CedarValueJson>): Record<string, CedarValueJson> {
  return (values.get(`${variable} tags`) ?? {}) as Record<string, CedarValueJson>
}

function under(prefix: string, values: Map<string, CedarValueJson>): Record<string, CedarValueJson> {
  const record: Record<string, CedarValueJson> = {}
  for (const [name, value] of values) if (name.startsWith(prefix)) record[name.slice(prefix.length)] = value
  return record
}
