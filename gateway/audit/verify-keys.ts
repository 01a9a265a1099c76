/** Which key speaks for a log: the one that is trusted, or the one that it led to since. */
import { join } from 'node:path'
import { readIfThere } from '../private-file.ts'
import { followKeys, type Handover } from './handover.ts'
import { keyFiles } from './key.ts'
import { NoteRefused, type NoteVerifier, parseVerifier } from './note.ts'
import type { Head } from './verify-heads.ts'
import type { Memory } from './verify-remember.ts'
import type { Findings } from './verify-verdict.ts'

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

function handedOver({ checkpoint, seq }: Handover): Head {
  const otherwise = `the first ${checkpoint.size} entries are not those that the old key signed before entry ${seq} ended it`
  return { ...checkpoint, check: 'key', otherwise }
}
