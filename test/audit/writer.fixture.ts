/**
 * A process that writes calls as fast as it can and says on stdout what was acknowledged, one `req` a line. `node writer.fixture.ts DIR [CALLS]`:
 * without a count it goes on until it is killed. Says `refused` once when the disk begins to fail, `recovered` when it goes on.
 */
import { writeSync } from 'node:fs'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { decision, endpoint, grant, inbound, leaseFacts, openTestLog, outcome, testAudit } from './log.fixture.ts'

const [dir = '', limit = 'Infinity'] = process.argv.slice(2)
const log = await openTestLog(dir, { clock: systemClock })
const audit = testAudit(log, systemClock)
const who = grant()
let left = Number(limit)
let isRefusing = false

writeSync(1, 'ready\n')
await Promise.all(Array.from({ length: 16 }, work))
await audit.close()

async function work(): Promise<void> {
  while (left-- > 0) {
    const event = audit.openCall(inbound())
    event.located(endpoint())
    event.authenticated(who)
    event.decided(decision())
    try {
      await event.commit()
    } catch {
      say(true)
      await new Promise((resolve) => setTimeout(resolve, 5))
      continue
    }
    say(false)
    // Synchronous: what is on the pipe was acknowledged, and everything acknowledged is on the pipe.
    writeSync(1, `${event.id}\n`)
    event.leased({ facts: leaseFacts() })
    event.closed(outcome())
  }
}

function say(refusing: boolean): void {
  if (refusing !== isRefusing) writeSync(1, refusing ? 'refused\n' : 'recovered\n')
  isRefusing = refusing
}
