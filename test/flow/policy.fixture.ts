/** Signed bundles as tests write them: files in a directory, and whoever stands for them. */
import { generateKeyPairSync, hash, type KeyObject } from 'node:crypto'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { MANIFEST, type Statement, signManifest } from '../../gateway/policy/source/signature.ts'

export interface Signer {
  readonly key: KeyObject
  /** PEM, as settings take it. */
  readonly pem: string
}

export function newSigner(): Signer {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  return { key: privateKey, pem: publicKey.export({ type: 'spki', format: 'pem' }) as string }
}

/** `post` may not be asked where it is said so. */
export const ALLOW_ALL = '@id("all") @owner("tests") permit (principal, action, resource);\n'
export const NO_POSTS = `${ALLOW_ALL}@id("no-posts") @owner("tests") forbid (principal, action == Action::"echo:post", resource);\n`

export interface Bundled {
  readonly files: Readonly<Record<string, string>>
  readonly version: number
  readonly name?: string
  readonly notAfter?: number
}

export function manifestOf({ files, version, name = 'prod', notAfter }: Bundled, { key }: Signer): Buffer {
  const statement: Statement = {
    ...{ name, version, issuedAt: Math.floor(Date.now() / 1000), notBefore: undefined, notAfter },
    files: new Map(Object.entries(files).map(([file, text]) => [file, hash('sha256', text, 'hex')])),
  }
  return signManifest(statement, key)
}

/** Put a bundle into a directory, in place of what is there. */
export async function writeBundle(dir: string, bundled: Bundled, by: Signer): Promise<void> {
  for (const [file, text] of Object.entries(bundled.files)) {
    await mkdir(dirname(join(dir, file)), { recursive: true })
    await writeFile(join(dir, file), text)
  }
  await writeFile(join(dir, MANIFEST), manifestOf(bundled, by))
}

export async function emptied(dir: string): Promise<string> {
  await rm(dir, { recursive: true, force: true })
  await mkdir(dir, { recursive: true })
  return dir
}
