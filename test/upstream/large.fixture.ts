/** Run as a process: a door to the upstream on the port given, which reports by how many MB its memory grew when asked. */
import { openDoor } from './upstream.fixture.ts'

const door = await openDoor({ port: Number(process.argv[2]) })
const before = process.memoryUsage.rss()
let peak = before
const watch = setInterval(() => {
  peak = Math.max(peak, process.memoryUsage.rss())
}, 10)

process.once('message', async () => {
  clearInterval(watch)
  process.send?.({ growthMb: (peak - before) / 1024 / 1024, outcomes: door.outcomes })
  await door.close()
  process.disconnect?.()
})
process.send?.({ port: door.port })
