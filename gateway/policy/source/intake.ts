/**
 * From what a source offers to policies that may be taken up: signatures first, then version and validity, then every file by its
 * hash. Whatever is missing, older, of another name or half there is refused with the reason, and what decides goes on.
 */
import { hash, type KeyObject } from 'node:crypto'
import { BundleRefused, type Signed, verifyManifest } from './signature.ts'
import { MAX_BUNDLE_BYTES, type Snapshot } from './source.ts'

export interface Terms {
  readonly keys: readonly KeyObject[]
  /** Different keys that have to sign. */
  readonly signatures: number
  /** Name that a bundle must have. Undefined: any. */
  readonly name: string | undefined
  /** The newest that was ever taken up here, or what the settings demand at least. */
  readonly floor: Floor
  /** Epoch seconds. */
  readonly nowS: number
}

export interface Floor {
  readonly version: number
  /** Hash of the manifest's payload at this very version: another bundle must not carry the same number. Undefined: none was taken. */
  readonly payload?: string | undefined
}

export interface Accepted extends Signed {
  readonly manifest: Buffer
  readonly revision: string | undefined
  /** File → its text. */
  readonly files: ReadonlyMap<string, string>
}

/** Seconds that the clock of whoever signs may be ahead of ours. */
const SKEW_S = 60

/** @throws {BundleRefused} */
export async function takeIn(snapshot: Omit<Snapshot, typeof Symbol.asyncDispose>, terms: Terms): Promise<Accepted> {
  const { manifest, revision } = snapshot
  const signed = verifyManifest(manifest, terms)
  const { statement } = signed
  checkIdentity(signed, terms, payloadHash(signed))
  if (statement.notBefore !== undefined && statement.notBefore > terms.nowS + SKEW_S)
    throw new BundleRefused(`Version ${statement.version} is valid from ${timeOf(statement.notBefore)} on.`)
  if (hasEnded(signed, terms.nowS))
    throw new BundleRefused(`Version ${statement.version} was valid until ${timeOf(statement.notAfter)}. Sign it anew.`)
  const files = new Map<string, string>()
  let size = 0
  for (const [name, sha256] of statement.files) {
    const bytes = await snapshot.read(name).catch((cause: Error) => {
      throw new BundleRefused(`${name}, which the manifest names, cannot be read: ${cause.message}`, { cause })
    })
    size += bytes.length
    if (size > MAX_BUNDLE_BYTES) throw new BundleRefused(`The policies are larger than ${MAX_BUNDLE_BYTES} bytes.`)
    if (hash('sha256', bytes, 'hex') !== sha256)
      throw new BundleRefused(
        `${name} is not what was signed. Either it was changed after that, or the source is being updated: then the next look finds it whole.`,
      )
    files.set(name, textOf(name, bytes))
  }
  return { ...signed, manifest, revision, files }
}

/** Byte for byte: what is read, and kept for the next start, is what was signed. */
function textOf(name: string, bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new BundleRefused(`${name} is not UTF-8.`, { cause })
  }
}

/** Whether a bundle has reached the end that whoever signed it gave it. */
export function hasEnded({ statement: { notAfter } }: Signed, nowS: number): boolean {
  return notAfter !== undefined && notAfter <= nowS
}

function checkIdentity(
  { statement: { name, version } }: Signed,
  { name: wanted, floor }: Terms,
  payload: string,
): void {
  if (wanted !== undefined && name !== wanted)
    throw new BundleRefused(`The bundle is called ${name}; this gateway takes ${wanted} (policy.name).`)
  if (version < floor.version)
    throw new BundleRefused(
      `Version ${version} is older than ${floor.version}, which this gateway has taken or its settings demand. To go back, sign the older policies under a newer version.`,
    )
  if (version === floor.version && floor.payload !== undefined && payload !== floor.payload)
    throw new BundleRefused(`There was another version ${version} before. Sign this one under a newer version.`)
}

/** Over what was said, whoever signed it: a signature that is added makes no other bundle. */
export function payloadHash({ statement: { name, version, issuedAt, notBefore, notAfter, files } }: Signed): string {
  const said = [name, version, issuedAt, notBefore ?? null, notAfter ?? null, [...files].sort()]
  return hash('sha256', JSON.stringify(said), 'base64url')
}

function timeOf(epochS: number | undefined): string {
  return new Date((epochS ?? 0) * 1000).toISOString().replace('.000Z', 'Z')
}
