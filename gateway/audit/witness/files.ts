/**
 * What a witness keeps on disk: its key, and for each log the last checkpoint that it cosigned, a file each, replaced whole and
 * synced. One process at a time: two that remember apart could sign two histories.
 */
import { createPrivateKey, generateKeyPairSync, hash } from 'node:crypto'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createOnce, makePrivate, readIfThere, readOrCreate, replace } from '../../private-file.ts'
import { takeLock } from '../files/lock.ts'
import { type Cosigner, cosigner, formatWitnessKey, parseWitnessKey } from './cosignature.ts'
import type { WitnessStore } from './witness.ts'

export interface WitnessFiles extends WitnessStore {
  close(): void
}

/** A log that contradicts itself without end must not fill the disk of its witness. */
const MAX_EVIDENCE = 64

/**
 * The Ed25519 key in `<dir>/witness.key`, made if absent, with `<dir>/witness.pub` beside it: what logs are told to trust.
 * @param name of a new witness, by preference a URL without scheme; one that has a key keeps its name.
 * @throws {Error} when the files are not such a key, or `rename` asks for another name.
 */
export async function loadWitnessKey(dir: string, name: { readonly fallback: string; readonly chosen?: string }) {
  await makePrivate(dir)
  const path = join(dir, 'witness.key')
  const pem = await readOrCreate(path, () =>
    generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }),
  )
  const published = (await readIfThere(join(dir, 'witness.pub')))?.toString('utf8').trim()
  const known = published === undefined ? undefined : parseWitnessKey(published).name
  if (known !== undefined && name.chosen !== undefined && known !== name.chosen)
    throw new Error(
      `The witness in ${dir} is called ${known}, and logs trust it by that name. Leave --name out, or make another witness in an empty directory.`,
    )
  const made = cosignerOf(path, pem, known ?? name.chosen ?? name.fallback)
  const text = formatWitnessKey(made.verifier)
  if (published === undefined) await createOnce(join(dir, 'witness.pub'), `${text}\n`, 0o644)
  else if (published !== text)
    throw new Error(`${join(dir, 'witness.pub')} is not of ${path}. Restore both from one backup.`)
  return made
}

function cosignerOf(path: string, pem: Buffer, name: string): Cosigner {
  try {
    return cosigner(name, createPrivateKey(pem))
  } catch (cause) {
    throw new Error(`${path}, for a witness "${name}", cannot be used: ${(cause as Error).message}.`, { cause })
  }
}

/** @throws {Error} when another process has it open. */
export async function openWitnessFiles(dir: string): Promise<WitnessFiles> {
  const [logs, evidence] = [join(dir, 'logs'), join(dir, 'evidence')]
  for (const path of [dir, logs, evidence]) await makePrivate(path)
  const lock = takeLock(
    join(dir, 'lock'),
    'another witness runs on this directory. Stop it, or give this one a directory of its own (--data)',
  )
  const nameOf = (origin: string) => hash('sha256', origin, 'hex')
  return {
    latest: (origin) => readIfThere(join(logs, nameOf(origin))),
    keep: (origin, note) => replace(join(logs, nameOf(origin)), note),
    async keepEvidence(origin, notes) {
      if ((await readdir(evidence)).length >= MAX_EVIDENCE) return
      for (const { size, root, bytes } of notes)
        await createOnce(join(evidence, `${nameOf(origin)}-${size}-${root.toString('hex', 0, 8)}`), Buffer.from(bytes))
    },
    close: () => lock.release(),
  }
}
