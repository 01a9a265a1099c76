/** A block of lines, examined: by this thread or by another. Nothing in it depends on what stands before it. */

import { split } from '../lines.ts'
import { leafHash } from '../tree/merkle.ts'
import { type Fact, type FactReader, factReader, type Wrong } from './scrutiny-facts.ts'

export interface Block {
  /** 32 bytes for each line. */
  readonly leaves: Uint8Array
  /** One for each line; undefined for what is no entry. */
  readonly facts: readonly (Fact | undefined)[]
  readonly wrong: readonly Wrong[]
}

/** @returns what examines blocks of whole lines. One for each thread: it remembers lineages. */
export function blockReader(isWhole: boolean): (bytes: Buffer) => Block {
  const read: FactReader = factReader(isWhole)
  return (bytes) => {
    const lines = split(bytes, 0)
    const leaves = Buffer.allocUnsafeSlow(lines.length * 32)
    const facts: (Fact | undefined)[] = []
    const wrong: Wrong[] = []
    for (const [at, line] of lines.entries()) {
      leafHash(line.bytes).copy(leaves, at * 32)
      const found = read(line.bytes)
      facts.push(found.fact)
      if (found.wrong) wrong.push({ at, ...found.wrong })
    }
    return { leaves, facts, wrong }
  }
}
