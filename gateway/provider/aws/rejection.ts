/**
 * Whether an answer of AWS says that the credential has ended, or that its signature was dated wrongly. REST APIs with JSON say it in the
 * head (`x-amzn-ErrorType`), S3 and those that take forms in XML, DynamoDB and its relatives in JSON. One known word is looked for; nothing
 * else of a body is believed, and the worst that a wrong one costs is another session.
 */
import type { AnswerHead, Rejection } from '../../protocol/message.ts'

const CODE =
  /^(?:ExpiredToken(?:Exception)?|RequestExpired|RequestTimeTooSkewed|InvalidAccessKeyId|InvalidClientTokenId|UnrecognizedClientException)(?::|$)/

/** With these AWS refuses a signature. */
export function isRefusal({ status }: AnswerHead): boolean {
  return status === 403 || status === 400
}

export function rejectionOf(answer: AnswerHead): Rejection {
  if (answer.status === 401) return true
  const named = field(answer, 'x-amzn-errortype')
  if (named !== undefined) return CODE.test(named)
  if (!isRefusal(answer)) return false
  const kind = /^(?:text|application)\/(?:x-amz-)?(xml|json)/i.exec(field(answer, 'content-type') ?? '')?.[1]
  if (answer.body === undefined) return kind === undefined ? false : 'body'
  return CODE.test(codeIn(answer.body.toString(), kind?.toLowerCase()) ?? '')
}

/** `<Code>` once, or `__type` with or without its namespace. */
function codeIn(text: string, kind: string | undefined): string | undefined {
  if (kind === 'xml') {
    const [only, ...more] = text.matchAll(/<Code>([A-Za-z]{1,64})<\/Code>/g)
    return more.length === 0 ? only?.[1] : undefined
  }
  try {
    const { __type: type } = Object(JSON.parse(text)) as { __type?: unknown }
    return typeof type === 'string' ? type.slice(type.lastIndexOf('#') + 1) : undefined
  } catch {
    return undefined
  }
}

/** When it was sent, by the clock of AWS: milliseconds since the epoch. */
export function dateOf(answer: AnswerHead): number | undefined {
  const ms = Date.parse(field(answer, 'date') ?? '')
  return Number.isNaN(ms) ? undefined : ms
}

function field({ raw }: AnswerHead, name: string): string | undefined {
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const bytes = raw[i] as Buffer
    if (bytes.length === name.length && bytes.toString('latin1').toLowerCase() === name)
      return raw[i + 1]?.toString('latin1')
  }
  return undefined
}
