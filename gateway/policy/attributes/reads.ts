/**
 * Which parts of a request a policy looks at, from its JSON form. A decision is the same for every request that agrees on
 * these, which is what makes remembering it sound. Whatever is not understood counts as reading everything.
 */
import type { PolicyJson } from '@cedar-policy/cedar-wasm/nodejs'

type Variable = 'principal' | 'action' | 'resource' | 'context'

/** `principal.owner`, `context.human`, `principal` for its identity, `resource tags`; `context *` for all of it. */
export type Reading = string

const ATTRIBUTE_OPERATORS = new Set(['.', 'has'])
const TAG_OPERATORS = new Set(['getTag', 'hasTag'])
/** These look at the identity of an entity only. */
const IDENTITY_OPERATORS = new Set(['in', '==', '!=', 'is'])

export function readingsOf(policy: PolicyJson): Set<Reading> {
  const readings = new Set<Reading>()
  if (policy.principal.op === '==' || policy.principal.op === 'in') readings.add('principal')
  if (policy.principal.op === 'is' && policy.principal.in !== undefined) readings.add('principal')
  // The action and the identity of the resource are fixed for a slice: their scopes read nothing of the request.
  for (const clause of policy.conditions) visit(clause.body, readings)
  return readings
}

/** @param name as in `Reading`. */
export function isRead(name: Reading, readings: ReadonlySet<Reading>): boolean {
  return readings.has(name) || readings.has(`${name.split(/[. ]/, 1)[0]} *`)
}

function visit(node: unknown, readings: Set<Reading>): void {
  if (Array.isArray(node)) {
    for (const child of node) visit(child, readings)
    return
  }
  if (typeof node !== 'object' || node === null) return
  for (const [operator, operand] of Object.entries(node)) {
    if (operator === 'Value') continue
    if (operator === 'Var') readings.add(`${String(operand)} *`)
    // The keys of a record are attribute names, which may look like operators.
    else if (operator === 'Record') visit(Object.values(operand as object), readings)
    else visitOperand(operator, operand, readings)
  }
}

/** A variable directly under an attribute or tag access reads that much of it; anywhere else, all of it. */
function visitOperand(operator: string, operand: unknown, readings: Set<Reading>): void {
  const variable = variableOf((operand as { left?: unknown } | null)?.left)
  if (variable !== undefined && ATTRIBUTE_OPERATORS.has(operator)) {
    readings.add(`${variable}.${firstAttribute((operand as { attr: unknown }).attr)}`)
    return
  }
  if (variable !== undefined && TAG_OPERATORS.has(operator)) {
    readings.add(`${variable} tags`)
    visit((operand as { right: unknown }).right, readings)
    return
  }
  if (IDENTITY_OPERATORS.has(operator)) visitIdentity(operand as object, readings)
  else visit(operand, readings)
}

/** The identity of action and resource is fixed for a slice; that of the principal is not. */
function visitIdentity(operands: object, readings: Set<Reading>): void {
  for (const operand of Object.values(operands)) {
    const variable = variableOf(operand)
    if (variable === 'principal') readings.add('principal')
    else if (variable === undefined || variable === 'context') visit(operand, readings)
  }
}

function variableOf(node: unknown): Variable | undefined {
  if (typeof node !== 'object' || node === null || !('Var' in node)) return undefined
  return node.Var as Variable
}

/** `context has a.b` names a path; the first part is what the request is asked for. */
function firstAttribute(attribute: unknown): string {
  return String(Array.isArray(attribute) ? attribute[0] : attribute)
}
