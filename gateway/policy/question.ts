/** The Cedar call made of the attributes that a slice reads, and of nothing else. */
import type { CedarValueJson, EntityJson } from '@cedar-policy/cedar-wasm/nodejs'
import type { Ask } from '../protocol/decision.ts'
import type { Operation } from '../protocol/service.ts'
import { type GrantAsk, type Selection, valuesOf } from './attributes/attributes.ts'
import { PAST, PAST_NAME } from './attributes/call.ts'

export interface Question {
  readonly principal: { readonly type: string; readonly id: string }
  readonly action: { readonly type: string; readonly id: string }
  readonly resource: { readonly type: string; readonly id: string }
  readonly context: Record<string, CedarValueJson>
  readonly entities: EntityJson[]
}

/** @param isPlaced false: no policy asks of what service the endpoint is. Default true. */
export function callQuestion(selection: Selection<Ask>, ask: Ask, operation: Operation, isPlaced = true): Question {
  const values = valuesOf(selection, ask)
  const resource = { type: 'Endpoint', id: operation.name }
  const endpoint: EntityJson = {
    uid: resource,
    attrs: {
      ...under('resource.', values),
      ...fixedOf(selection, operation),
    },
    parents: isPlaced ? [{ type: 'Service', id: operation.name.slice(0, operation.name.indexOf(':')) }] : [],
    ...tagsOf('resource', values),
  }
  return questionOf(operation.name, resource, values, [endpoint, ...pastOf(selection, ask)])
}

/** The same for every call of the operation. */
const FIXED: Readonly<Record<string, (operation: Operation) => CedarValueJson>> = {
  access: ({ access }) => access,
  sensitivity: ({ sensitivity }) => sensitivity,
  returns_secret: ({ returnsSecret }) => returnsSecret,
  irreversible: ({ irreversible }) => irreversible,
  labels: ({ labels = [] }) => [...labels],
}

function fixedOf({ reads }: Selection<Ask>, operation: Operation): Record<string, CedarValueJson> {
  const read = Object.entries(FIXED).filter(([name]) => reads(`resource.${name}`))
  return Object.fromEntries(read.map(([name, of]) => [name, of(operation)]))
}

/** Everything that is the same for every call of the operation. */
export function fixedFor(operation: Operation): Readonly<Record<string, CedarValueJson>> {
  return fixedOf({ ...NO_SELECTION, reads: () => true }, operation)
}

const NO_SELECTION = { names: [], table: {} }

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
    ...tagsOf('principal', values),
  }
  return {
    principal,
    action: { type: 'Action', id: action },
    resource,
    context: under('context.', values),
    entities: [agent, ...entities].filter(isTold),
  }
}

/** One of which nothing is said is as good as absent, and each costs Cedar a tenth of the question. */
function isTold({ attrs, parents, tags }: EntityJson): boolean {
  return parents.length > 0 || tags !== undefined || Object.keys(attrs).length > 0
}

function tagsOf(variable: string, values: Map<string, CedarValueJson>): Pick<EntityJson, 'tags'> {
  const tags = values.get(`${variable} tags`)
  return tags === undefined ? {} : { tags: tags as Record<string, CedarValueJson> }
}

function under(prefix: string, values: Map<string, CedarValueJson>): Record<string, CedarValueJson> {
  const record: Record<string, CedarValueJson> = {}
  for (const [name, value] of values) if (name.startsWith(prefix)) record[name.slice(prefix.length)] = value
  return record
}
