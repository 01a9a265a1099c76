/** Names in the log for whoever may read the gateway's keys; for everybody else they stay sealed, and everything else is there. */
import { existsSync } from 'node:fs'
import type { Unsealing } from '../audit/personal/personal.ts'
import type { WhichLog } from './log/find-audit.ts'

const CLOSED: Unsealing = { unseal: (value) => value, sealedForms: () => [], refresh: async () => undefined }

export async function openUnsealing(which: WhichLog): Promise<Unsealing> {
  const [{ findKeysDir }, { personalDirIn }] = await Promise.all([
    import('./log/find-audit.ts'),
    import('../settings/data-directory.ts'),
  ])
  try {
    const keysDir = await findKeysDir(which)
    const dir = personalDirIn(keysDir)
    if (!existsSync(dir)) return CLOSED // nothing is loaded for names that nobody sealed
    const [{ personalKeyIn }, { openPersonal }] = await Promise.all([
      import('../settings/keys.ts'),
      import('../audit/personal/personal.ts'),
    ])
    const key = await personalKeyIn(keysDir)
    return key === undefined ? CLOSED : await openPersonal({ dir, key, isReader: true })
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code !== 'EACCES') process.stderr.write(`keyless: sealed names stay sealed: ${message}\n`)
    return CLOSED
  }
}
