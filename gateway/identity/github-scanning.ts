/**
 * Whether a message is from GitHub's secret scanning: ECDSA on P-256 with SHA-256 over the body as it came, by a key that GitHub publishes
 * ("Secret scanning partner program" in its documentation). There is no time in what is signed: who repeats a message ends nothing that
 * the first one did not end.
 */
import { createPublicKey, type KeyObject, verify } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import { download, type GuardedFetch, isRecord } from './key-set.ts'

export interface GithubKeysOptions {
  /** Key identifier → PEM. Undefined: they are fetched. */
  readonly keys: Readonly<Record<string, string>> | undefined
  readonly url: string
  readonly fetch: GuardedFetch
  readonly clock: Pick<Clock, 'elapsedMs'>
}

/** @param keyId and @param signature as in the header fields; standard Base64 of a DER signature. Never rejects. */
export type IsFromGithub = (body: Buffer, keyId: string, signature: string) => Promise<boolean>

/** Keys are asked for again after so long, or at once for one that is not known, but not more often than every `PAUSE_MS`. */
const FRESH_MS = 3_600_000
const PAUSE_MS = 60_000
const MAX_KEYS = 64

export function createGithubKeys({ keys, url, fetch, clock }: GithubKeysOptions): IsFromGithub {
  let known: ReadonlyMap<string, KeyObject> = readKeys(Object.entries(keys ?? {}))
  const load = download(url, fetch)
  let askedMs = Number.NEGATIVE_INFINITY
  let asking: Promise<void> | undefined
  const ask = async () => {
    try {
      known = listed(await load())
    } catch {
      // Those that are known go on counting; with none, nothing is believed.
    }
  }
  const refresh = (pauseMs: number): Promise<void> => {
    if (keys !== undefined) return Promise.resolve()
    if (asking === undefined && clock.elapsedMs() - askedMs >= pauseMs) {
      askedMs = clock.elapsedMs()
      asking = ask().finally(() => {
        asking = undefined
      })
    }
    return asking ?? Promise.resolve()
  }
  return async (body, keyId, signature) => {
    await refresh(known.has(keyId) ? FRESH_MS : PAUSE_MS)
    const key = known.get(keyId)
    const bytes = Buffer.from(signature, 'base64')
    if (key === undefined || bytes.toString('base64') !== signature) return false
    return verify('sha256', body, { key, dsaEncoding: 'der' }, bytes)
  }
}

function listed(text: string): ReadonlyMap<string, KeyObject> {
  const told: unknown = JSON.parse(text)
  const all: unknown[] = isRecord(told) && Array.isArray(told.public_keys) ? told.public_keys.slice(0, MAX_KEYS) : []
  return readKeys(all.map((one) => (isRecord(one) ? [String(one.key_identifier), String(one.key)] : ['', ''])))
}

/** Only keys of the kind that the signature has to be made with. */
function readKeys(pairs: readonly (readonly string[])[]): ReadonlyMap<string, KeyObject> {
  return new Map(
    pairs.flatMap(([id = '', pem = '']) => {
      try {
        const key = createPublicKey(pem)
        return key.asymmetricKeyDetails?.namedCurve === 'prime256v1' ? [[id, key] as const] : []
      } catch {
        return []
      }
    }),
  )
}
