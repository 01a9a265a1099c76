/**
 * The roots on disk: `ca.key` is the first, `ca.1.key` its successor, and so on, each a key with its certificate, written once
 * and whole. `ca.pem` is made of them, for clients to read. Replicas share the directory; whoever comes first decides.
 */
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createOnce, readIfThere, replace, syncDirectory } from '../private-file.ts'
import { certificatesIn, type Root, readRoot } from './root.ts'

const NAME = /^ca(?:\.([1-9]\d{0,5}))?\.key$/

/** Which files there are and what they hold. */
export interface RootFiles {
  /** Number → text, oldest first. */
  readonly keys: ReadonlyMap<number, string>
  readonly published: string | undefined
}

export async function readFiles(dir: string): Promise<RootFiles> {
  const numbers = (await readdir(dir))
    .map((name) => NAME.exec(name))
    .filter((match) => match !== null)
    .map(([, n]) => Number(n ?? 0))
    .sort((a, b) => a - b)
  const keys = new Map<number, string>()
  for (const number of numbers) {
    const text = await readIfThere(keyPath(dir, number))
    if (text !== undefined) keys.set(number, String(text)) // else it has ended, and was removed since we listed it
  }
  return { keys, published: (await readIfThere(join(dir, 'ca.pem')))?.toString() }
}

/** @throws Error naming the file that is wrong, and what to do. */
export function rootsIn(dir: string, { keys, published }: RootFiles): Root[] {
  const certPath = join(dir, 'ca.pem')
  const certificates = published === undefined ? undefined : certificatesIn(published)
  const remedy = (path: string) =>
    `Remove ${path} and ${certPath} to have a new authority made, and give agents the new ca.pem.`
  const roots = [...keys].map(([number, text]) => {
    const path = keyPath(dir, number)
    try {
      return readRoot(text, number, certificates ?? [])
    } catch (cause) {
      const what = `${path} holds no P-256 key whose CA certificate is in it or in ${certPath}`
      throw new Error(`${what}. ${remedy(path)}`, { cause })
    }
  })
  const oldest = roots[0]
  if (oldest === undefined || certificates === undefined) return roots
  const isOurs = roots.some(({ chain }) => certificates.some((one) => bare(chain).includes(bare(one))))
  if (isOurs) return roots
  const what =
    certificates.length === 0
      ? 'holds no PEM certificate'
      : `is not the CA certificate of the key in ${keyPath(dir, oldest.number)}`
  throw new Error(`${certPath} ${what}. ${remedy(keyPath(dir, oldest.number))}`)
}

/** Line ends and indentation say nothing. */
function bare(pem: string): string {
  return pem.replaceAll(/\s/g, '')
}

/** Add a root. Of two that come at once the first wins, and both find it. */
export async function addRoot(dir: string, number: number, pair: string): Promise<void> {
  await createOnce(keyPath(dir, number), pair)
  await syncDirectory(dir)
}

export async function removeRoot(dir: string, { number }: Root): Promise<void> {
  await rm(keyPath(dir, number), { force: true })
}

/** Put the certificates into `ca.pem`, unless they are there. A crash before this leaves it older than the keys; the next start writes it. */
export async function publish(dir: string, roots: readonly Root[], before: string | undefined): Promise<void> {
  const text = roots.map(({ anchors }) => anchors).join('')
  if (before === undefined || bare(before) !== bare(text)) await replace(join(dir, 'ca.pem'), text)
}

function keyPath(dir: string, number: number): string {
  return join(dir, number === 0 ? 'ca.key' : `ca.${number}.key`)
}
