/**
 * What a request says outside of its path: AWS names the operation in `X-Amz-Target`, or in a form as `Action`. What decides on the
 * operation must not be readable in two ways: else this one is decided on, and the other is done. Pure.
 */
import type { Content, RawHeaders } from '../../protocol/message.ts'
import { ABSENT, type Found, readParameter } from '../../protocol/parameter.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { valuesOf } from '../../protocol/raw-headers.ts'
import type { Condition } from '../catalogue/pattern.ts'

export interface Told {
  readonly rawHeaders: RawHeaders
  /** Absent: it has no form, or none was read. */
  readonly content?: Pick<Content, 'form'>
}

/** @param query what follows the question mark, raw. @throws {GatewayError} `request_malformed` */
export function told(condition: Condition, said: Told, query: string): boolean {
  const values = condition.in === 'header' ? fieldsOf(condition.name, said, query) : formOf(condition.name, said, query)
  if (values.length > 1) throw malformed(condition.name, 'is said more than once')
  const [value] = values
  if (value === undefined) return false
  return condition.value.endsWith('*') ? value.startsWith(condition.value.slice(0, -1)) : value === condition.value
}

/** A presigned URL may hold a field as parameter, whose name counts in any case. */
function fieldsOf(name: string, { rawHeaders }: Told, query: string): string[] {
  const inQuery = name.startsWith('x-amz-') ? query.split('&').filter((part) => nameOf(part) === name) : []
  return [
    ...valuesOf(rawHeaders, name).map((value) => value.trim()),
    ...inQuery.map((part) => part.slice(part.indexOf('=') + 1)),
  ]
}

function nameOf(part: string): string {
  const equals = part.indexOf('=')
  const raw = equals === -1 ? part : part.slice(0, equals)
  try {
    return decodeURIComponent(raw.replaceAll('+', ' ')).trim().toLowerCase()
  } catch {
    return raw
  }
}

function formOf(name: string, { content }: Told, query: string): string[] {
  if (content?.form === undefined) return []
  return [content.form, query].flatMap((text) => {
    const found: Found = readParameter({ place: 'query', name }, { rawPath: `?${text}` })
    if ('value' in found) return [String(found.value)]
    if (found === ABSENT) return []
    throw malformed(name, found.fault)
  })
}

function malformed(name: string, fault: string): GatewayError {
  return new GatewayError(
    'request_malformed',
    `The operation depends on ${JSON.stringify(name)}, which ${fault}. Send it once, in one place.`,
  )
}
