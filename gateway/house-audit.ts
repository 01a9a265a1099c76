/** The part of the composition root that keeps the record: the log, and what reads it, witnesses it and sends it on. */
import { hostname } from 'node:os'
import { join } from 'node:path'
import { type Audit, createAudit } from './audit/audit.ts'
import { type Forgotten, forget, type Named } from './audit/forgetting.ts'
import { loadLogKey, openLog } from './audit/log.ts'
import { openPersonal, type Personal } from './audit/personal.ts'
import { personalSeals } from './audit/personal-seals.ts'
import { Tally, type Watcher } from './audit/tally.ts'
import { type Keys, loadKeys, personalDirIn } from './keys.ts'
import { type Clock, systemClock } from './protocol/clock.ts'
import type { Human } from './protocol/grant.ts'
import type { Settings } from './settings.ts'
import { localUser } from './settings-parts.ts'
import { VERSION } from './version.ts'

interface AuditParts {
  readonly keys: Keys
  readonly clock: Clock
  readonly personal: Personal
  /** Told of everything that is recorded. */
  readonly watcher?: Watcher
}

export async function openAudit(settings: Settings, { keys, clock, personal, watcher }: AuditParts): Promise<Audit> {
  const dir = auditDir(settings)
  const { origin, durability, heartbeatS, segmentBytes, keepDays } = settings.audit
  const key = await loadLogKey(dir, origin)
  const log = await openLog({ dir, origin, key, durability, clock, segmentBytes, keepDays })
  return createAudit({
    ...{ log, clock, node: hostname(), version: VERSION, hmacKey: keys.record },
    personal: settings.audit.personal === 'sealed' ? personalSeals(personal, settings.tenant, clock) : undefined,
    tally: new Tally(watcher),
    heartbeatMs: heartbeatS * 1000,
  })
}

/** How often the keys of humans are looked at, ms: whether another replica or a command destroyed one. */
const PERSONAL_REFRESH_MS = 1000

/** Also where nothing is sealed any more: what was sealed before can be read and forgotten. */
export async function openHumans({ keysDir, audit }: Settings, { personal: key }: Keys): Promise<Humans> {
  const isReader = audit.personal === 'plain'
  const personal = await openPersonal({ dir: personalDirIn(keysDir), key, isReader })
  // While it cannot be read, what is in memory stays in use.
  const timer = setInterval(() => personal.refresh().catch(() => undefined), PERSONAL_REFRESH_MS).unref()
  return { personal, [Symbol.dispose]: () => clearInterval(timer) }
}

interface Humans extends Disposable {
  readonly personal: Personal
}

/** Forget a human while no gateway runs. @throws when one does: then it is the gateway's to do. */
export async function forgetHuman(settings: Settings, human: Named): Promise<Forgotten> {
  const keys = await loadKeys(settings.keysDir)
  using humans = await openHumans(settings, keys)
  const { personal } = humans
  const audit = await openAudit(settings, { keys, clock: systemClock, personal })
  try {
    return await forget({ audit, personal, tenant: settings.tenant, by: operator() }, human)
  } finally {
    await audit.close()
  }
}

/** Whoever works on this machine as the user who may read the keys. */
export function operator(): Human {
  return { iss: `local:${hostname()}`, sub: localUser() }
}

export function auditDir({ dataDir }: Settings): string {
  return join(dataDir, 'audit')
}
