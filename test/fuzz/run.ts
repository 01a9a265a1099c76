/** `npm run fuzz -- --seconds 600 [--seed 7] [--only words of a name]`: every property in turn, until the time is over or one does not hold. */
import { parseArgs } from 'node:util'
import { PROPERTIES } from './properties.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string' },
    only: { type: 'string', default: '' },
  },
})
const seconds = Number(values.seconds)
if (!(seconds > 0)) throw new Error(`--seconds ${values.seconds} is not a number above 0. Write --seconds 600.`)

const chosen = PROPERTIES.filter(({ name }) => name.includes(values.only))
const turnMs = Math.max(1_000, Math.min(10_000, (seconds * 1_000) / Math.max(1, chosen.length)))
const deadline = performance.now() + seconds * 1_000
let failed = 0
for (let turn = 0; chosen.length > 0 && performance.now() < deadline && failed === 0; turn++) {
  for (const { name, run } of chosen) {
    if (performance.now() > deadline) break
    try {
      run({
        numRuns: 1_000_000_000,
        interruptAfterTimeLimit: Math.min(turnMs, Math.max(100, deadline - performance.now())),
        ...(values.seed !== undefined && { seed: Number(values.seed) + turn }),
      })
      console.log(`holds: ${name}`)
    } catch (cause) {
      failed += 1
      console.log(`does not hold: ${name}\n${(cause as Error).message}`)
    }
  }
}
console.log(failed === 0 ? `${chosen.length} properties hold` : `${failed} of ${chosen.length} properties do not hold`)
process.exitCode = failed === 0 && chosen.length > 0 ? 0 : 1
