/** Reads a log into an SQLite index, an entry a transaction, saying so after each: a program to be killed. Arguments: directory, file. */
import { systemClock } from '../../gateway/protocol/clock.ts'
import { openIndex, originOf } from '../../gateway/records/opening.ts'

const [dir = '', path = ''] = process.argv.slice(2)
const index = await openIndex({
  dir,
  origin: (await originOf(dir)) ?? '',
  at: { path },
  clock: systemClock,
  onProgress: (next) => void process.stdout.write(`${next}\n`),
})
await index.indexer.catchUp()
