import { expect, it } from 'vitest'
import { createSecretWork } from '../gateway/house/secrets.ts'
import { parseSettings } from '../gateway/settings.ts'

it('knows a sealed name as referred to wherever settings say it, what opens Vault included', async () => {
  const settings = parseSettings(
    `
credentials: { github: { provider: static, value: { sealed: github } } }
vault: { address: "https://vault.test", login: { method: approle, role_id: r, secret_id: { sealed: vault-id } } }
audit: { readers: { soc: { token: { sealed: soc } } } }
`,
    '/base',
  )
  const rooms = { sealed: { names: async () => ['github', 'vault-id', 'old'] } }
  expect(await createSecretWork(settings, rooms as never).list()).toEqual({
    secrets: [
      { name: 'github', used: true },
      { name: 'vault-id', used: true },
      { name: 'old', used: false },
    ],
    missing: ['soc'],
  })
})
