/** What outsiders may read of the log in a directory: its checkpoint and tiles, straight from its files. */
import { join } from 'node:path'
import { readIfThere } from '../../private-file.ts'
import { files } from '../lines.ts'
import { tileAt } from './tiles.ts'

/** @param isWitnessed whether the log has witnesses: then their newest checkpoint is the one that is shown. */
export function publicLog(dir: string, isWitnessed: boolean) {
  const read = (name: string) => readIfThere(join(dir, name))
  return {
    /** Undefined while nothing is signed. */
    checkpoint: async () => (isWitnessed ? await read(files.witnessed) : undefined) ?? (await read(files.checkpoint)),
    tile: (path: string) => tileAt(dir, path),
  }
}
