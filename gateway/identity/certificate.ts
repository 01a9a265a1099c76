/**
 * What of an X.509 certificate (RFC 5280 §4) an X.509-SVID is judged by. Signatures and keys are OpenSSL's to read; names and
 * extensions are read here, from the bytes. What is not understood and marked critical makes a certificate unusable.
 */
import { type KeyObject, X509Certificate } from 'node:crypto'
import {
  bitsOf,
  booleanOf,
  type Element,
  elementsOf,
  expectTag,
  objectIdentifierOf,
  onlyElement,
  smallIntegerOf,
  TAG,
  timeOf,
} from './der.ts'

/** Numbers of the alternatives of GeneralName (RFC 5280 §4.2.1.6). */
export const NAME = { dns: 2, directory: 4, uri: 6 } as const

export interface GeneralName {
  /** Number of the alternative. */
  readonly form: number
  /** As octets stand there, one character each. */
  readonly text: string
}

export interface NameConstraints {
  /** Forms of name are permitted only as listed; a form that is not listed is not constrained. */
  readonly permitted: readonly GeneralName[]
  readonly excluded: readonly GeneralName[]
}

export interface Certificate {
  /** DER */
  readonly raw: Buffer
  /** The same, for OpenSSL to verify its signature. */
  readonly x509: X509Certificate
  readonly publicKey: KeyObject
  /** DER of the names; equal names are equal bytes, as RFC 5280 §7.1 allows a CA to ensure. */
  readonly issuer: Buffer
  readonly subject: Buffer
  /** Hexadecimal. */
  readonly serial: string
  /** Object identifier of the algorithm that it is signed with; OpenSSL holds it equal to the one inside. */
  readonly signature: string
  /** Milliseconds since the epoch; both ends are inside. */
  readonly notBeforeMs: number
  readonly notAfterMs: number
  readonly isAuthority: boolean
  /** CAs that may follow below this one, those of its own name not counted. Undefined: any number. */
  readonly pathLength: number | undefined
  readonly usage: { readonly isCritical: boolean; has(bit: number): boolean } | undefined
  /** Object identifiers. Undefined: any. */
  readonly purposes: readonly string[] | undefined
  readonly names: readonly GeneralName[]
  readonly constraints: NameConstraints | undefined
}

interface Extension {
  readonly isCritical: boolean
  readonly value: Buffer
}

/** RFC 5280 §4.2.1, below 2.5.29. */
const EXTENSION = {
  usage: '2.5.29.15',
  names: '2.5.29.17',
  basic: '2.5.29.19',
  constraints: '2.5.29.30',
  purposes: '2.5.29.37',
} as const
const UNDERSTOOD: ReadonlySet<string> = new Set(Object.values(EXTENSION))

/** @throws {SyntaxError} that says what about the certificate cannot be used. */
export function readCertificate(raw: Buffer): Certificate {
  const { x509, publicKey } = openssl(raw)
  const [signed, algorithm] = elementsOf(onlyElement(raw, TAG.sequence).value)
  const fields = elementsOf(expectTag(signed, TAG.sequence).value)
  if (fields[0]?.tag !== 0xa0) throw new SyntaxError('it is of version 1, which has no extensions')
  const [, , , issuer, validity, subject, , ...optional] = fields
  const [notBefore, notAfter, ...more] = elementsOf(expectTag(validity, TAG.sequence).value)
  if (more.length > 0) throw new SyntaxError('its validity has more than two times')
  const extensions = extensionsOf(optional.find(({ tag }) => tag === 0xa3))
  const usage = extensions.get(EXTENSION.usage)
  const purposes = extensions.get(EXTENSION.purposes)
  const names = extensions.get(EXTENSION.names)
  const constraints = extensions.get(EXTENSION.constraints)
  return {
    raw,
    x509,
    publicKey,
    issuer: expectTag(issuer, TAG.sequence).bytes,
    subject: expectTag(subject, TAG.sequence).bytes,
    serial: x509.serialNumber,
    signature: objectIdentifierOf(elementsOf(expectTag(algorithm, TAG.sequence).value)[0]),
    notBeforeMs: timeOf(notBefore),
    notAfterMs: timeOf(notAfter),
    ...basicsOf(extensions.get(EXTENSION.basic)),
    usage: usage && { isCritical: usage.isCritical, has: bitsOf(onlyElement(usage.value, TAG.bitString)) },
    purposes: purposes && elementsOf(onlyElement(purposes.value, TAG.sequence).value).map(objectIdentifierOf),
    names: names === undefined ? [] : elementsOf(onlyElement(names.value, TAG.sequence).value).map(nameOf),
    constraints: constraints && constraintsOf(constraints.value),
  }
}

function openssl(raw: Buffer): Pick<Certificate, 'x509' | 'publicKey'> {
  try {
    const x509 = new X509Certificate(raw)
    if (x509.raw.equals(raw)) return { x509, publicKey: x509.publicKey } // a key that cannot be read throws
  } catch {}
  throw new SyntaxError('it is no certificate')
}

function extensionsOf(wrapper: Element | undefined): ReadonlyMap<string, Extension> {
  const found = new Map<string, Extension>()
  if (wrapper === undefined) return found
  for (const { tag, value } of elementsOf(onlyElement(wrapper.value, TAG.sequence).value)) {
    if (tag !== TAG.sequence) throw new SyntaxError('its extensions cannot be read')
    const [type, ...rest] = elementsOf(value)
    const id = objectIdentifierOf(expectTag(type, TAG.objectIdentifier))
    const [critical, content, ...more] = rest.length === 2 ? rest : [undefined, ...rest]
    const isCritical = critical !== undefined && booleanOf(critical)
    if (more.length > 0) throw new SyntaxError(`its extension ${id} cannot be read`)
    if (found.has(id)) throw new SyntaxError(`it has the extension ${id} twice`) // RFC 5280 §4.2
    if (isCritical && !UNDERSTOOD.has(id)) throw new SyntaxError(`its critical extension ${id} is not understood`)
    found.set(id, { isCritical, value: expectTag(content, TAG.octetString).value })
  }
  return found
}

function basicsOf(extension: Extension | undefined): Pick<Certificate, 'isAuthority' | 'pathLength'> {
  if (extension === undefined) return { isAuthority: false, pathLength: undefined }
  const fields = [...elementsOf(onlyElement(extension.value, TAG.sequence).value)]
  const isAuthority = fields[0]?.tag === TAG.boolean && booleanOf(fields.shift() as Element)
  const [length, ...more] = fields
  if (more.length > 0) throw new SyntaxError('its basic constraints cannot be read')
  return { isAuthority, pathLength: length && smallIntegerOf(length) }
}

/** A choice is tagged by its number in context: 0x80 + n, or 0xa0 + n around a structure. */
function nameOf({ tag, value }: Element): GeneralName {
  if ((tag & 0xc0) !== 0x80) throw new SyntaxError('its alternative names cannot be read')
  return { form: tag & 0x1f, text: value.toString('latin1') }
}

function constraintsOf(value: Buffer): NameConstraints {
  const trees = elementsOf(onlyElement(value, TAG.sequence).value)
  if (trees.length === 0 || trees.some(({ tag }, i) => (tag !== 0xa0 && tag !== 0xa1) || tag === trees[i - 1]?.tag))
    throw new SyntaxError('its name constraints cannot be read')
  const below = (tag: number) =>
    elementsOf(trees.find((tree) => tree.tag === tag)?.value ?? Buffer.alloc(0)).map(baseOf)
  return { permitted: below(0xa0), excluded: below(0xa1) }
}

/** RFC 5280 §4.2.1.10: `minimum` is 0, so left out, and `maximum` is never there. */
function baseOf(subtree: Element): GeneralName {
  const [base, ...more] = elementsOf(expectTag(subtree, TAG.sequence).value)
  if (base === undefined || more.length > 0) throw new SyntaxError('its name constraints cannot be read')
  return nameOf(base)
}
