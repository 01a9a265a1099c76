/**
 * What engines outside the gateway are asked: subject, action, resource and context as AuthZEN 1.0 spells them, with the attributes
 * that Cedar policies read. Never a body, a query or a credential: what is told leaves the gateway.
 */
import type { Ask } from '../../protocol/decision.ts'
import type { Proposal } from '../../protocol/instruction.ts'
import type { GrantAsk, Table, Value } from '../attributes/attribute.ts'
import { callTable } from '../attributes/call.ts'
import { delegateTable, mintTable } from '../attributes/grant.ts'
import { grantAsks } from '../issuing.ts'

export interface Question {
  readonly subject: { readonly type: 'agent'; readonly id: string; readonly properties: Facts }
  readonly action: { readonly name: string }
  readonly resource: { readonly type: 'operation' | 'service'; readonly id: string; readonly properties: Facts }
  readonly context: Facts
}

/** One question, and the operation or the patterns of operations that it is about. */
export interface Asked {
  readonly question: Question
  readonly operations: readonly string[]
}

type Facts = Readonly<Record<string, Value>>

/** These cost a look at a store or a body, and are collected only where Cedar reads them. */
const COSTLY = /^context\.(?:params|past|past_[a-z]+|calls_left|bytes_left)$/

const told = (name: string) => name.replace(' ', '.')

/** Attributes that can be told, as settings name them: `principal.owner`, `resource.host`, `context.human`. */
export const TOLD_NAMES: readonly string[] = [
  ...new Set([callTable, mintTable, delegateTable].flatMap((table) => Object.keys(table).map(told))),
  ...['access', 'sensitivity', 'returns_secret', 'irreversible', 'labels'].map((name) => `resource.${name}`),
].filter((name) => name !== 'principal' && !COSTLY.test(name))

/** @param names which attributes are told; undefined: all of them. */
export function askedOfCall(ask: Ask, names: ReadonlySet<string> | undefined): Asked {
  const { operation } = ask.endpoint
  const { access, sensitivity, returnsSecret, irreversible, labels = [] } = operation
  const fixed = { access, sensitivity, returns_secret: returnsSecret, irreversible, labels: [...labels] }
  const facts = factsOf(callTable, ask, names)
  const isTold = ([name]: [string, Value]) => names?.has(`resource.${name}`) ?? true
  return {
    question: {
      subject: { type: 'agent', id: ask.grant.agent.id, properties: facts.principal },
      action: { name: operation.name },
      resource: {
        ...{ type: 'operation', id: operation.name },
        properties: { ...facts.resource, ...Object.fromEntries(Object.entries(fixed).filter(isTold)) },
      },
      context: facts.context,
    },
    operations: [operation.name],
  }
}

/** One question for each service in the scope of the grant; none where no authority is given. */
export function askedOfGrant(proposal: Proposal, names: ReadonlySet<string> | undefined): readonly Asked[] {
  if (!('ttlS' in proposal)) return []
  return grantAsks(proposal).map((ask) => {
    const facts = factsOf<GrantAsk>(ask.action === 'mint' ? mintTable : delegateTable, ask, names)
    return {
      question: {
        subject: { type: 'agent', id: ask.agent.id, properties: facts.principal },
        action: { name: ask.action },
        resource: { type: 'service', id: ask.service, properties: facts.resource },
        context: facts.context,
      },
      operations: ask.operations,
    }
  })
}

type Variable = 'principal' | 'resource' | 'context'

function factsOf<A>(table: Table<A>, ask: A, names: ReadonlySet<string> | undefined) {
  const facts: Record<Variable, Record<string, Value>> = { principal: {}, resource: {}, context: {} }
  for (const [name, { read }] of Object.entries(table)) {
    const plain = told(name)
    if (plain === 'principal' || COSTLY.test(plain) || !(names?.has(plain) ?? true)) continue
    const value = read(ask)
    const dot = plain.indexOf('.')
    if (value !== undefined) facts[plain.slice(0, dot) as Variable][plain.slice(dot + 1)] = value
  }
  return facts
}
