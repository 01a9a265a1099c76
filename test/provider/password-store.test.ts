/** Keys that lie in 1Password, pass and their like, through the commands that docs/references.md gives. */
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, test, vi } from 'vitest'
import { parse } from 'yaml'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { grant, service } from '../lease/lease.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-op-'))
const KEY = 'canary-item-0815'

/** Programs that answer as the real ones do, to exactly the documented arguments, and to nobody who is not signed in. */
const programs: Readonly<Record<string, string>> = {
  op: '[ -n "$OP_SERVICE_ACCOUNT_TOKEN" ] || { echo "[ERROR] not signed in $KEY" >&2; exit 1; }\n[ "$*" = "read --no-newline op://Agents/Billing/credential" ] && printf %s "$KEY"',
  pass: '[ "$*" = "show agents/billing" ] && echo "$KEY"',
  gopass: '[ "$*" = "show -o agents/billing" ] && printf %s "$KEY"',
  aws: '[ "$*" = "secretsmanager get-secret-value --secret-id billing --query SecretString --output text" ] && echo "$KEY"',
  gcloud: '[ "$*" = "secrets versions access latest --secret=billing" ] && printf %s "$KEY"',
  az: '[ "$*" = "keyvault secret show --vault-name agents --name billing --query value --output tsv" ] && echo "$KEY"',
}

const page = readFileSync(new URL('../../docs/references.md', import.meta.url), 'utf8')
/** Store → command, as the page has it. */
const documented = [...page.matchAll(/^\| ([^|]+) \| `(\[.+?\])`/gm)].map(([, store = '', command = '']) => {
  return [store, parse(command) as string[]] as const
})

beforeAll(() => {
  for (const [name, script] of Object.entries(programs)) {
    writeFileSync(join(dir, name), `#!/bin/sh\n${script}\n`)
    chmodSync(join(dir, name), 0o700)
  }
  vi.stubEnv('PATH', `${dir}${delimiter}${process.env.PATH}`)
  vi.stubEnv('KEY', KEY)
})
afterEach(() => vi.stubEnv('OP_SERVICE_ACCOUNT_TOKEN', undefined))
afterAll(() => {
  vi.unstubAllEnvs()
  rmSync(dir, { recursive: true, force: true })
})

const read = (exec: readonly string[]) =>
  createProvider(credentialSchema.parse({ provider: 'static', value: { exec } }), providerTools(dir)).issue(
    { service: service(), grant: grant(), ttlS: 60, role: undefined },
    new AbortController().signal,
  )

test('there is a command for every store', () => {
  expect(documented.map(([, [program]]) => program)).toEqual(Object.keys(programs))
})

test.each(documented)('%s gives the key, without a line break', async (_, command) => {
  vi.stubEnv('OP_SERVICE_ACCOUNT_TOKEN', 'ops_canary')
  expect((await read(command)).secret.reveal()).toBe(KEY)
})

test('a program that nobody is signed in to gives no key, and what it says is not repeated', async () => {
  const [, command] = documented[0] ?? expect.unreachable()
  const error = await read(command).catch((cause: Error) => cause)
  expect(error).toMatchObject({ code: 'credential_unavailable' })
  expect(JSON.stringify([error, (error as Error).message])).not.toContain(KEY)
})

test('a program that is not installed is a matter of configuration', async () => {
  await expect(read(['op-of-another-machine', 'read'])).rejects.toMatchObject({ code: 'credential_unconfigured' })
})
