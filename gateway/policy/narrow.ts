/**
 * The schema under which one slice is asked. What a question costs Cedar grows with every attribute that it is given and with every
 * action that its schema knows; so a slice is asked under its own action, and told what its policies read. Nothing is lost by that:
 * a policy that looked at an attribute which is missing would be an error, and an error is a no.
 */
import { type SchemaJson, schemaToJson } from '@cedar-policy/cedar-wasm/nodejs'

type Json = Readonly<Record<string, unknown>>

interface Described {
  readonly attributes?: Json
}

interface Action {
  readonly memberOf?: readonly { readonly id: string }[]
  readonly appliesTo?: Json & { readonly context?: { readonly type: string } & Described }
}

interface Namespace {
  readonly entityTypes: Readonly<Record<string, { readonly shape?: Described }>>
  readonly commonTypes: Readonly<Record<string, Described>>
  readonly actions: Readonly<Record<string, Action>>
}

/** An entity type in the schema → the variable by which policies read it. */
const VARIABLES: Readonly<Record<string, string>> = { Agent: 'principal', Endpoint: 'resource' }

/** @returns the schema of one action of it, with the attributes that are read. @param text a whole schema, which Cedar has validated. */
export function narrowing(text: string): (action: string, reads: (name: string) => boolean) => SchemaJson<string> {
  const answer = schemaToJson(text)
  if (answer.type === 'failure')
    throw new Error(`Cedar refuses its own schema: ${answer.errors.map(({ message }) => message).join('; ')}`)
  const whole = answer.json[''] as unknown as Namespace
  const contexts = new Set(Object.values(whole.actions).map(({ appliesTo }) => appliesTo?.context?.type))
  return (action, reads) => {
    const { memberOf = [], appliesTo } = whole.actions[action] ?? {}
    const named = appliesTo?.context?.type ?? ''
    const context = whole.commonTypes[named] ?? appliesTo?.context
    const groups = memberOf.map(({ id }) => [id, whole.actions[id]])
    const own = { memberOf, appliesTo: { ...appliesTo, context: kept(context, 'context', reads) } }
    const entityTypes = Object.entries(whole.entityTypes).map(([name, type]) => {
      const variable = VARIABLES[name]
      return [name, variable === undefined ? type : { ...type, shape: kept(type.shape, variable, reads) }]
    })
    const narrow = {
      commonTypes: Object.fromEntries(Object.entries(whole.commonTypes).filter(([name]) => !contexts.has(name))),
      entityTypes: Object.fromEntries(entityTypes),
      actions: Object.fromEntries([...groups, [action, own]]),
    }
    return { '': narrow } as unknown as SchemaJson<string>
  }
}

function kept(described: Described | undefined, variable: string, reads: (name: string) => boolean): Json {
  const attributes = Object.entries(described?.attributes ?? {}).filter(([name]) => reads(`${variable}.${name}`))
  return { type: 'Record', attributes: Object.fromEntries(attributes) }
}
