/** Secrets that lie in Vault's or OpenBao's key-value engines, versions 1 and 2: the form `{ vault: PATH }` of a reference. */
import { z } from 'zod'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import type { ReadSecret, SecretReference, VaultReference } from '../reference.ts'
import type { VaultConnection } from './connection.ts'
import { type Advice, vaultFailure } from './failure.ts'

/** Reads every form of reference. @param vault undefined: settings have no `vault`, and `readElsewhere` says so. */
export function readingVault(readElsewhere: ReadSecret, vault: VaultConnection | undefined): ReadSecret {
  if (vault === undefined) return readElsewhere
  return (reference: SecretReference, signal) =>
    'vault' in reference ? readKv(vault, reference, signal) : readElsewhere(reference, signal)
}

const values = z.record(z.string(), z.unknown())

/** KV version 2 wraps what was stored beside its metadata; `data` is null when this version was deleted. */
const versioned = z.strictObject({ data: values.nullable(), metadata: z.looseObject({ version: z.int() }) })

const kvAnswer = z.object({ data: values })

async function readKv(
  vault: VaultConnection,
  { vault: path, field = 'value' }: VaultReference,
  signal: AbortSignal = AbortSignal.timeout(TIMEOUT_MS),
): Promise<Secret> {
  const answer = await vault.ask({ method: 'GET', path }, signal)
  const read = answer.status === 200 ? kvAnswer.safeParse(answer.json).data?.data : undefined
  if (read === undefined) throw vaultFailure(vault.issuer, answer, ADVICE, 'credential_unconfigured')
  const stored = versioned.safeParse(read).data?.data ?? read
  const value = Object.hasOwn(stored, field) ? stored[field] : undefined
  if (typeof value === 'string' && value !== '') return new Secret(value)
  throw new GatewayError(
    'credential_unconfigured',
    `${vault.issuer} has a secret there, but no text in its field "${field}". Name another field, as in { vault: secret/data/billing, field: password }.`,
  )
}

/** Milliseconds, where nobody else bounds the time. */
const TIMEOUT_MS = 10_000

const ADVICE: Advice = {
  asked: 'a read of the secret that settings name',
  400: 'Check its path: version 2 of the engine has data/ behind the mount, as in secret/data/billing.',
  403: 'Allow the gateway’s policy there to read this path, and check it: version 2 of the engine has data/ behind the mount, as in secret/data/billing.',
  404: 'Nothing is stored under this path: version 2 of the engine has data/ behind the mount, as in secret/data/billing.',
}
