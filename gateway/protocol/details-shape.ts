/** Shapes inside `authorization_details`, each refused with its place, what was got and what is allowed. Pure. */
import { GatewayError } from './problem.ts'

const MAX_LIST = 256
const MAX_TEXT = 512

/** One kind of text in a list. */
export interface TextKind {
  isRight(text: string): boolean
  /** As in "allowed is …". */
  readonly form: string
}

export function invalidDetails(at: string, got: string, allowed: string): GatewayError {
  return new GatewayError('invalid_details', `${at} is ${got}; allowed is ${allowed}.`)
}

export function shown(value: unknown): string {
  if (value === undefined) return 'missing'
  const text = JSON.stringify(value) ?? typeof value
  return text.length > 80 ? `${text.slice(0, 80)}…` : text
}

/** An object that has no other members than these. */
export function parseMembers(value: unknown, at: string, names: readonly string[]): Readonly<Record<string, unknown>> {
  const object = parseObject(value, at, `an object with the members ${names.join(', ')}`)
  const unknown = Object.keys(object).find((name) => !names.includes(name))
  if (unknown === undefined) return object
  throw invalidDetails(`${at}[${shown(unknown)}]`, 'not known here', `one of ${names.join(', ')}`)
}

export function parseObject(value: unknown, at: string, form: string): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw invalidDetails(at, shown(value), form)
  return value as Readonly<Record<string, unknown>>
}

/** 1 to 256 different texts of one kind. An empty list would allow nothing, and some would read it as everything. */
export function parseList(value: unknown, at: string, kind: TextKind): readonly string[] {
  return parseElements(value, at, kind.form).map((text, i) => parseText(text, `${at}[${i}]`, kind))
}

export function parseText(value: unknown, at: string, { isRight, form }: TextKind): string {
  if (typeof value === 'string' && value.length <= MAX_TEXT && isRight(value)) return value
  throw invalidDetails(at, shown(value), `${form}; at most ${MAX_TEXT} characters`)
}

/** 1 to 256 different elements. */
export function parseElements(value: unknown, at: string, form: string): readonly unknown[] {
  if (!Array.isArray(value) || value.length === 0 || value.length > MAX_LIST) {
    const got = Array.isArray(value) && value.length > 0 ? `a list of ${value.length}` : shown(value)
    throw invalidDetails(at, got, `a list of 1 to ${MAX_LIST}, each ${form}`)
  }
  const twice = value.findIndex((element, i) => value.indexOf(element) !== i)
  if (twice !== -1) throw invalidDetails(`${at}[${twice}]`, `${shown(value[twice])} once more`, 'to name it once')
  return value
}
