/** Names in the log for whoever may read the gateway's keys; for everybody else they stay sealed, and everything else is there. */
import type { Unsealing } from '../audit/personal.ts'
import type { WhichLog } from './find-audit.ts'

const CLOSED: Unsealing = { unseal: (value) => value, sealedForms: () => [], refresh: async () => undefined }

export async function openUnsealing(which: WhichLog): Promise<Unsealing> {
  const [{ findKeysDir }, { personalDirIn, personalKeyIn }, { openPersonal }] = await Promise.all([
    import('./find-audit.ts'),
    import('../keys.ts'),
    import('../audit/personal.ts'),
  ])
  try {
    const keysDir = await findKeysDir(which)
    const key = await personalKeyIn(keysDir)
    return key === undefined ? CLOSED : await openPersonal({ dir: personalDirIn(keysDir), key, isReader: true })
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    if (code !== 'EACCES') process.stderr.write(`keyless: sealed names stay sealed: ${message}\n`)
    return CLOSED
  }
}
