/** The part of the composition root that keeps the record: the log, and what reads it, witnesses it and sends it on. */
import { hostname } from 'node:os'
import { join } from 'node:path'
import { type Audit, createAudit } from './audit/audit.ts'
import { loadLogKey, openLog } from './audit/log.ts'
import type { Keys } from './keys.ts'
import type { Clock } from './protocol/clock.ts'
import type { Settings } from './settings.ts'
import { VERSION } from './version.ts'

export async function openAudit(settings: Settings, keys: Keys, clock: Clock): Promise<Audit> {
  const dir = auditDir(settings)
  const { origin, durability } = settings.audit
  const log = await openLog({ dir, origin, key: await loadLogKey(dir, origin), durability, clock })
  return createAudit({ log, clock, node: hostname(), version: VERSION, hmacKey: keys.record })
}

export function auditDir({ dataDir }: Settings): string {
  return join(dataDir, 'audit')
}
