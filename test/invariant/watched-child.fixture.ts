/**
 * A gateway in a process of its own, which says on request what it holds: `node --expose-gc watched-child.fixture.ts SETTINGS`.
 * It dies with whoever started it.
 */
import { setImmediate } from 'node:timers/promises'
import { openGateway } from '../../gateway/main.ts'
import { loadSettings } from '../../gateway/settings.ts'

const gateway = await openGateway(await loadSettings(process.argv[2] ?? ''))

process.on('message', async () => {
  for (let round = 0; round < 4; round++) {
    gc?.()
    await setImmediate()
  }
  const { heapUsed, external } = process.memoryUsage()
  const resources: Record<string, number> = {}
  for (const name of process.getActiveResourcesInfo()) resources[name] = (resources[name] ?? 0) + 1
  process.send?.({ bytes: heapUsed + external, resources })
})
process.on('disconnect', () => process.exit(1))
process.on('SIGTERM', async () => {
  await gateway.stop()
  process.removeAllListeners('disconnect').disconnect?.() // nothing else may keep it
})
process.send?.({ proxy: gateway.proxy })
