/**
 * What STS answers to GetCallerIdentity. The XML is read by its letter: elements and plain text. Entities, comments, CDATA and
 * document types are refused, since nothing in an honest answer needs them and each can hide something.
 */
import type { Refuse } from './refuse.ts'

export interface Caller {
  /** `arn:aws:iam::123456789012:role/R`, without the role's path; a user's ARN is as it is. */
  readonly arn: string
  readonly account: string
  /** `AROA…` or `AIDA…`: the role or user itself, whatever it is called. */
  readonly principalId: string
  /** Of an assumed role: what its session is called. An EC2 instance's is its id. */
  readonly session: string | undefined
}

const DOCUMENT =
  /^\s*(?:<\?xml version="1\.0"(?: encoding="(?:UTF|utf)-8")?\s*\?>)?\s*<GetCallerIdentityResponse xmlns="https:\/\/sts\.amazonaws\.com\/doc\/2011-06-15\/">([\s\S]*)<\/GetCallerIdentityResponse>\s*$/
const MAX_LENGTH = 16 * 1024

/** @throws what `refuse` makes when it is not the answer of STS, or about something that is no role or user. */
export function readCaller(xml: string, refuse: Refuse): Caller {
  const isPlain = xml.length <= MAX_LENGTH && !xml.includes('&') && !xml.includes('<!')
  const response = elementsOf(isPlain ? DOCUMENT.exec(xml)?.[1] : undefined)
  const result = elementsOf(response?.get('GetCallerIdentityResult'))
  const [arn, userId, account] = ['Arn', 'UserId', 'Account'].map((name) => result?.get(name)?.trim())
  if (arn === undefined || userId === undefined || account === undefined || !/^\d{12}$/.test(account))
    throw refuse('STS gave no answer that can be read')
  const [, partition = '', owner, kind, name = ''] =
    /^arn:(aws(?:-[a-z]+)*):(?:sts|iam)::(\d{12}):(assumed-role|user)\/([\x21-\x7e]+)$/.exec(arn) ?? []
  if (owner !== account) throw refuse('its signer is neither an assumed role nor a user')
  const [principalId = '', ownSession] = userId.split(':')
  if (!/^[A-Z0-9]{16,128}$/.test(principalId)) throw refuse('STS gave no answer that can be read')
  if (kind === 'user' && arn.includes(':iam:')) return { arn, account, principalId, session: undefined }
  const [role = '', session, ...more] = name.split('/')
  if (kind !== 'assumed-role' || !arn.includes(':sts:') || !session || more.length > 0 || session !== ownSession)
    throw refuse('STS gave no answer that can be read')
  return { arn: `arn:${partition}:iam::${account}:role/${role}`, account, principalId, session }
}

/** Name → content of the elements that `content` consists of; undefined when it is anything else, or a name is there twice. */
function elementsOf(content: string | undefined): ReadonlyMap<string, string> | undefined {
  if (content === undefined) return undefined
  const found = new Map<string, string>()
  const element = /\s*<([A-Za-z]{1,64})>([\s\S]*?)<\/\1>\s*/y
  while (element.lastIndex < content.length) {
    const [, name = '', inner = ''] = element.exec(content) ?? []
    if (name === '' || found.has(name)) return undefined
    found.set(name, inner)
  }
  return found
}
