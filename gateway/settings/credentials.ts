/**
 * Credentials in settings, held against the machine and against the services there are: what would be refused only at the first
 * call can be said at the start.
 */

import { nearest } from '../protocol/nearest.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Service } from '../protocol/service.ts'
import { type ReadSecret, type SecretReference, secretReference } from '../provider/reference.ts'
import { fallbacksOf } from './fallback.ts'

/**
 * Why a configured credential cannot be used as things are, one sentence; undefined if nothing is known against it. Variables
 * and files are read; a command is not run, because running it may have effects of its own, and Vault is not asked: it keeps a log.
 */
export async function credentialProblem(config: unknown, readSecret: ReadSecret): Promise<string | undefined> {
  for (const reference of referencesIn(config)) {
    if ('exec' in reference || 'vault' in reference) continue
    try {
      await readSecret(reference)
    } catch (cause) {
      if (cause instanceof GatewayError) return cause.detail
      throw cause
    }
  }
  return undefined
}

/** Every reference to a secret somewhere in it. */
export function referencesIn(value: unknown): SecretReference[] {
  if (typeof value !== 'object' || value === null) return []
  const { data } = secretReference.safeParse(value)
  return data === undefined ? Object.values(value).flatMap(referencesIn) : [data]
}

/**
 * One sentence for each entry under `credentials` that no service takes, and that stands in for none: a misspelt name would otherwise
 * show at the first call.
 */
export function unusedCredentials(
  credentials: Parameters<typeof fallbacksOf>[0],
  services: readonly Service[],
): string[] {
  const wanted = [...services.flatMap(({ credential }) => credential ?? []), ...fallbacksOf(credentials).values()]
  return Object.keys(credentials)
    .filter((name) => !wanted.includes(name))
    .map((name) => {
      const meant = nearest(name, wanted)
      return `credentials.${name} belongs to none of the services.${meant === undefined ? '' : ` Did you mean ${meant}?`}`
    })
}
