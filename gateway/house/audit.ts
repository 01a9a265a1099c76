/** The part of the composition root that keeps the record: the log, and what reads it, witnesses it and sends it on. */
import { hostname } from 'node:os'
import { join } from 'node:path'
import { type Audit, createAudit } from '../audit/audit.ts'
import { Tally, type Watcher } from '../audit/entries/tally.ts'
import { loadLogKey, openLog } from '../audit/log.ts'
import { type Forgotten, forget, type Named } from '../audit/personal/forgetting.ts'
import { openPersonal, type Personal } from '../audit/personal/personal.ts'
import { personalSeals } from '../audit/personal/seals.ts'
import { type Clock, systemClock } from '../protocol/clock.ts'
import type { SourceView } from '../protocol/control-policy.ts'
import type { Human } from '../protocol/grant.ts'
import { bodyHashes } from '../protocol/keyed-hash.ts'
import { personalDirIn } from '../settings/data-directory.ts'
import { type Keys, loadKeys } from '../settings/keys.ts'
import { localUser } from '../settings/parts.ts'
import type { Settings } from '../settings.ts'
import type { BodyHashes } from '../upstream/answering.ts'
import { VERSION } from '../version.ts'

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
  // Whether credentials that this log does not name may come from the logs of other replicas.
  const opened = { shared: settings.redis !== undefined }
  const log = await openLog({ dir, origin, key, durability, clock, segmentBytes, keepDays, opened })
  return createAudit({
    ...{ log, clock, node: hostname(), version: VERSION, hmacKey: keys.record },
    personal: settings.audit.personal === 'sealed' ? personalSeals(personal, settings.tenant, clock) : undefined,
    tally: new Tally(watcher),
    heartbeatMs: heartbeatS * 1000,
  })
}

/** Of which bodies the outcome of a call holds a keyed hash. */
export function bodyHashesOf({ audit }: Settings, { record }: Keys): BodyHashes {
  if (audit.bodyHashes === 'none') return {}
  const start = bodyHashes(record)
  return audit.bodyHashes === 'all' ? { requests: start, answers: start } : { requests: start }
}

/** By digest, so that it can be compared with what was reviewed. */
export async function recordSettings(audit: Audit, { file, tenant, written }: Settings): Promise<void> {
  await audit.record('settings.loaded', tenant, {
    digest: written.digest,
    file: file ?? null,
    names: [...written.names],
  })
}

/** What decides from now on. */
export async function recordPolicy(
  audit: Audit,
  tenant: string,
  { bundle, catalogue, source, engines = [] }: Loaded,
): Promise<void> {
  await audit.record('policy.loaded', tenant, {
    policy_set: bundle.digest,
    policies: bundle.policies.length,
    files: [...new Set(bundle.policies.map((policy) => policy.file))],
    services: catalogue.services.map((service) => service.name),
    ...(engines.length > 0 && { engines: [...engines] }),
    ...(source?.bundle && {
      ...{ source: source.kind, place: source.place, ...source.bundle, signed_by: [...source.bundle.signed_by] },
    }),
  })
}

interface Loaded {
  readonly bundle: { readonly digest: string; readonly policies: readonly { readonly file: string }[] }
  readonly catalogue: { readonly services: readonly { readonly name: string }[] }
  /** Where a signed bundle is from. */
  readonly source?: SourceView
  /** That have to agree. */
  readonly engines?: readonly string[] | undefined
}

/** How often the keys of humans are looked at, ms: whether another replica or a command destroyed one. */
const PERSONAL_REFRESH_MS = 1000

/** Also where nothing is sealed any more: what was sealed before can be read and forgotten. */
export async function openHumans({ keysDir, audit }: Settings, { personal: key }: Keys): Promise<Humans> {
  const isReader = audit.personal === 'plain'
  const dir = personalDirIn(keysDir)
  const personal = await openPersonal({ dir, key, isReader }).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === undefined) throw cause
    const need = isReader ? 'read' : 'write for audit.personal: sealed'
    throw new Error(
      `The keys of humans in ${dir} cannot be used (${cause.code}). Let this user ${need} in keys_dir, and remove what else has that name.`,
      {
        cause,
      },
    )
  })
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
