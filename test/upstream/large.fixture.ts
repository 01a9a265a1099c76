/**
 * Run as a process: a door to the upstream on the port given, by HTTP/2 if what to trust is given too, which reports by how
 * many MB its memory grew when asked.
 */
import { openDoor, service } from './upstream.fixture.ts'

const [, , port, ca] = process.argv
const overHttp2 = (pem: string) => ({ isHttp2: true, service: service({ scheme: 'https' }), upstream: { ca: [pem] } })
const door = await openDoor({ port: Number(port), ...(ca !== undefined && overHttp2(ca)) })
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
