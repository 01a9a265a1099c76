/** The Vault or OpenBao server of the settings, and whether everything that needs one has it. */
import type { VaultConnectionConfig } from '../provider/vault/schema.ts'
import type { Surroundings } from './around.ts'
import { referencesIn } from './credentials.ts'
import type { WrittenSettings } from './schema.ts'

/** Reports every credential that asks a server which is not there. */
export function vaultOf(
  { vault, credentials = {} }: WrittenSettings,
  around: Surroundings,
): VaultConnectionConfig | undefined {
  if (vault !== undefined) return vault
  for (const [name, config] of Object.entries(credentials)) {
    const isProvider = config.provider === 'vault'
    if (isProvider ? config.connection !== undefined : !referencesIn(config).some((one) => 'vault' in one)) continue
    around.report(['credentials', name], {
      got: isProvider ? 'provider: vault' : 'a reference { vault: … }',
      allowed: 'only with a server to ask',
      fix: 'write vault: { address: https://vault.example.com:8200, login: { method: approle, role_id: …, secret_id: { file: path } } } at the top',
    })
  }
  return undefined
}
