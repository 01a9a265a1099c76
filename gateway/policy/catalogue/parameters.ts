/**
 * The parameters of a request that its service file names for policy. Each is read in one way only or not at all: what two readers
 * could take for two values, and what is of another type than the file says, refuses the request.
 */
import type { ParameterValue } from '../../protocol/decision.ts'
import { ABSENT, type Readable, readParameter } from '../../protocol/parameter.ts'
import type { NamedParameter, ParameterType } from '../../protocol/service.ts'

/** Longer ones are no words that a policy compares. */
const MAX_LENGTH = 4096
const MAX_ITEMS = 1024

export type ReadParameters =
  | { readonly params: Readonly<Record<string, ParameterValue>> }
  /** What is wrong, as the end of a sentence. */
  | { readonly fault: string }

export function readParameters(parameters: readonly NamedParameter[], request: Readable): ReadParameters {
  const params: Record<string, ParameterValue> = {}
  for (const { name, key, from, type } of parameters) {
    const found = readParameter(from, request)
    if (found === ABSENT) continue
    if ('fault' in found) return { fault: `${key}, which ${found.fault}` }
    if (found.value === null) continue // said to be absent
    const value = TYPES[type](found.value, from.place === 'query')
    if (value === undefined) return { fault: `${key}, which is not ${WANTED[type]}` }
    params[name] = value
  }
  return { params }
}

const WANTED: Readonly<Record<ParameterType, string>> = {
  string: `text of at most ${MAX_LENGTH} characters`,
  long: 'a whole number',
  bool: 'true or false',
  strings: 'a list of texts',
}

const TYPES: Readonly<Record<ParameterType, (value: unknown, isText: boolean) => ParameterValue | undefined>> = {
  string: (value) => (isShort(value) ? value : undefined),
  long: (value, isText) => {
    if (isText && !/^(?:0|-?[1-9]\d{0,15})$/.test(String(value))) return undefined
    const number = isText ? Number(value) : value
    return Number.isSafeInteger(number) ? (number as number) : undefined
  },
  bool: (value, isText) => {
    if (isText) return value === 'true' ? true : value === 'false' ? false : undefined
    return typeof value === 'boolean' ? value : undefined
  },
  strings: (value) => {
    const isList = Array.isArray(value) && value.length <= MAX_ITEMS && value.every(isShort)
    return isList ? [...new Set(value as string[])].sort() : undefined
  },
}

/** Half of a surrogate pair is no text to Cedar. */
function isShort(value: unknown): value is string {
  return typeof value === 'string' && value.length <= MAX_LENGTH && value.isWellFormed()
}
