/**
 * What the gateway of this machine can say of a text without being asked: the keyed hashes of what it lent stand in its log, and the key
 * to make them in its directory of keys. Whoever may read both may also read the credentials' seals; nobody else learns anything.
 */
import { createSecretKey } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { findKeysDir } from '../log/find-audit.ts'
import type { WhichIndex } from '../log/find-index.ts'
import type { Seekers } from './finder.ts'

/** @returns what is known; empty where there is no log or key. */
export async function knownHere(which: WhichIndex): Promise<Pick<Seekers, 'leased' | 'canary'>> {
  const [{ settingsHere, say }, { createCanaries }] = await Promise.all([
    import('../log/with-index.ts'),
    import('../../protocol/canary.ts'),
  ])
  const settings = await settingsHere(which)
  const canaries = settings && createCanaries(settings.leaks.canaries)
  const leased = await leasedHere(which).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT') say(`goes on without what the gateway lent: ${cause.message}`)
    return undefined
  })
  return { leased, canary: canaries && ((text) => canaries.find(text)) }
}

async function leasedHere(which: WhichIndex): Promise<Seekers['leased']> {
  const key = await readFile(join(await findKeysDir(which), 'lease.key'))
  const [{ withIndex }, { createSeal }, { Secret }] = await Promise.all([
    import('../log/with-index.ts'),
    import('../../lease/seal.ts'),
    import('../../protocol/secret.ts'),
  ])
  const names = new Map<string, string>()
  await withIndex(which, async ({ database }) => {
    const rows = await database.all<{ cred_id: string; credential: string | null }>(
      'SELECT DISTINCT cred_id, credential FROM records WHERE cred_id IS NOT NULL',
      [],
    )
    for (const { cred_id: id, credential } of rows) names.set(id, credential ?? '')
  })
  if (names.size === 0) return undefined
  const seal = createSeal(createSecretKey(key))
  return (word) => names.get(seal.credentialId(new Secret(word)))
}
