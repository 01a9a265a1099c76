/** The part of the composition root that changes what is in the sealed store: each change is in the log before it is made, without its value. */
import type { Audit } from '../audit/audit.ts'
import { systemClock } from '../protocol/clock.ts'
import type { SecretsView } from '../protocol/control-connect.ts'
import type { Human } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import { Secret } from '../protocol/secret.ts'
import { SEALED_NAME } from '../provider/reference.ts'
import { referencesIn } from '../settings/credentials.ts'
import { loadKeys } from '../settings/keys.ts'
import type { Settings } from '../settings.ts'
import { openAudit, openHumans, operator } from './audit.ts'
import { connectRedis } from './redis.ts'
import { type HouseSealed, openHouseSealed } from './sealed.ts'

/** Every change is by `human`. @throws {GatewayError} `instruction_invalid`, `store_unavailable`, `audit_unavailable`. */
export interface SecretWork {
  list(): Promise<SecretsView>
  /** A secret of a new name. */
  set(name: string, value: string, human: Human): Promise<void>
  /** Another value in the place of the one there is. */
  rotate(name: string, value: string, human: Human): Promise<void>
  remove(name: string, human: Human): Promise<void>
  /** Seal everything anew under a new key. */
  reseal(human: Human): Promise<{ readonly values: number }>
}

type SecretRooms = Pick<HouseSealed, 'sealed' | 'reseal'> & { readonly audit: Pick<Audit, 'administer'> }

export function createSecretWork(settings: Settings, { sealed, reseal, audit }: SecretRooms): SecretWork {
  const { tenant } = settings
  const note = (kind: `admin.${string}`, human: Human, facts: Record<string, string>) =>
    audit.administer(kind, { tenant, human }, facts)
  const present = async (name: string) => {
    requireName(name)
    const row = await sealed.read(name)
    if (row === undefined) throw invalid(`No secret is named ${name}. Make it with \`keyless secret set ${name}\`.`)
    return row.version
  }
  return {
    async list() {
      const used = new Set(sealedNamesIn(settings))
      const names = (await sealed.names('')).filter((name) => SEALED_NAME.test(name))
      return {
        secrets: names.map((name) => ({ name, used: used.has(name) })),
        missing: [...used].filter((name) => !names.includes(name)).sort(),
      }
    },
    async set(name, value, human) {
      requireName(name)
      requireValue(value)
      if ((await sealed.read(name).catch(() => undefined)) !== undefined) throw exists(name)
      await note('admin.secret_set', human, { name })
      if ((await sealed.write(name, new Secret(value), 0)) === undefined) throw exists(name)
    },
    async rotate(name, value, human) {
      requireValue(value)
      const version = await present(name)
      await note('admin.secret_rotated', human, { name })
      requireUnchanged(await sealed.write(name, new Secret(value), version), name)
    },
    async remove(name, human) {
      const version = await present(name)
      await note('admin.secret_removed', human, { name })
      requireUnchanged(await sealed.write(name, null, version), name)
    },
    async reseal(human) {
      await note('admin.secrets_resealed', human, {})
      return { values: await reseal() }
    },
  }
}

/** Do this to the store while no gateway runs on the data directory. @throws when one does: then it is the gateway's to do. */
export async function withSecretWork<T>(
  settings: Settings,
  work: (secrets: SecretWork, by: Human) => Promise<T>,
): Promise<T> {
  await using open = new AsyncDisposableStack()
  const keys = await loadKeys(settings.keysDir)
  const { personal } = open.use(await openHumans(settings, keys))
  const audit = open.adopt(await openAudit(settings, { keys, clock: systemClock, personal }), (room) => room.close())
  const redis = settings.redis ? await connectRedis(settings.redis.url) : undefined
  open.defer(() => redis?.disconnect())
  const store = open.adopt(openHouseSealed(settings, { redis, clock: systemClock }), (room) => room.close())
  return await work(createSecretWork(settings, { ...store, audit }), operator())
}

function sealedNamesIn({ credentials, vault, audit }: Settings): string[] {
  return [credentials, vault, audit.exports, audit.readers].flatMap((part) =>
    referencesIn(part).flatMap((reference) => ('sealed' in reference ? reference.sealed : [])),
  )
}

function requireName(name: string): void {
  if (SEALED_NAME.test(name)) return
  throw invalid('A secret is named by 1 to 128 of the characters A-Z a-z 0-9 . _ - and begins with a letter or digit.')
}

function requireValue(value: string): void {
  if (value === '') throw invalid('The value is empty. Give it on standard input.')
}

function requireUnchanged(version: number | undefined, name: string): void {
  if (version === undefined) throw invalid(`Somebody else changed ${name} at this moment. Look at it, and try again.`)
}

function exists(name: string): GatewayError {
  return invalid(
    `A secret is named ${name} already. Put another value in its place with \`keyless secret rotate ${name}\`.`,
  )
}

function invalid(detail: string): GatewayError {
  return new GatewayError('instruction_invalid', detail)
}
