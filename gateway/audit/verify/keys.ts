/** Which key speaks for a log: the one that is trusted, or the one that it led to since. */
import { join } from 'node:path'
import { readIfThere } from '../../private-file.ts'
import { followKeys, type Handover, KEY_ROTATED, LAST_WORDS } from '../files/handover.ts'
import { keyFiles } from '../key.ts'
import { formatVerifier, NoteRefused, type NoteVerifier, parseVerifier } from '../tree/note.ts'
import type { Head } from './heads.ts'
import type { Memory } from './remember.ts'
import type { Fact } from './scrutiny-facts.ts'
import type { Findings } from './verdict.ts'

export interface Trust {
  /** Trusted keys of logs. */
  readonly keys: readonly NoteVerifier[]
  readonly memory: Memory
  /** There is no other log that the keys could be of. */
  readonly isAlone: boolean
}

/** The key that was given, else the one that is remembered, else the one beside the log. @throws {Error} when there is none. */
export async function trustedKey(dir: string, { keys, memory, isAlone }: Trust): Promise<NoteVerifier> {
  if (isAlone && keys[0]) return keys[0]
  const beside = await readIfThere(join(dir, keyFiles.public))
  if (!beside) throw new Error(`there is no ${keyFiles.public} in ${dir}`)
  const own = parseVerifier(beside.toString('utf8').trim())
  const given = keys.find(({ name }) => name === own.name)
  if (given) return given
  if (keys.length > 0) throw new Error(`none of the public keys is of the log "${own.name}"`)
  const known = memory.get(own.name)
  return known ? parseVerifier(known.key) : own
}

/** From that key to the one that signs now, and the last heads that the earlier ones signed. */
export async function followedKey(
  dir: string,
  trusted: NoteVerifier,
  findings: Findings,
): Promise<{ verifier: NoteVerifier; heads: Head[] }> {
  try {
    const { current, handovers } = await followKeys(dir, trusted)
    return { verifier: current, heads: handovers.map(handedOver) }
  } catch (cause) {
    if (!(cause instanceof NoteRefused)) throw cause
    findings.fault('key', null, cause.message)
    return { verifier: trusted, heads: [] }
  }
}

/** What is wrong when the key that signs is one that this entry ended: the file that shows the way on may have been taken away. */
export function signedTooLate(
  { kind, facts }: Fact,
  at: { readonly index: number; readonly covered: number },
  verifier: NoteVerifier,
): string | undefined {
  if (kind !== KEY_ROTATED || facts?.old_key !== formatVerifier(verifier)) return undefined
  if (at.covered <= at.index + LAST_WORDS) return undefined
  return `the key of the log ended with this entry, and signs ${at.covered} entries: whoever signed that has an old key`
}

function handedOver({ checkpoint, seq }: Handover): Head {
  const otherwise = `the first ${checkpoint.size} entries are not those that the old key signed before entry ${seq} ended it`
  return { ...checkpoint, check: 'key', otherwise }
}
