/** What outsiders may read of the log in a directory: its checkpoint and tiles, straight from its files. */
import { join } from 'node:path'
import { readIfThere } from '../private-file.ts'
import { files } from './lines.ts'
import { tileAt } from './tiles.ts'

export function publicLog(dir: string) {
  return {
    /** The newest checkpoint that witnesses have cosigned; without such, the newest one. */
    checkpoint: async () =>
      (await readIfThere(join(dir, files.witnessed))) ?? (await readIfThere(join(dir, files.checkpoint))),
    tile: (path: string) => tileAt(dir, path),
  }
}
