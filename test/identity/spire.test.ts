/**
 * SVIDs of SPIRE itself where it is on the PATH (`KEYLESS_TEST_SPIRE=required` makes its absence a failure), and otherwise such
 * as its server signs them. The title of the test says which; docs/identity.md says what was seen.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { x509TrustSchema } from '../../gateway/identity/trust-x509.ts'
import { createX509Svids } from '../../gateway/identity/x509-svid.ts'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { hasSpire, openSpire, type Spire } from './spire.fixture.ts'
import { trustDomain } from './svid.fixture.ts'

const PATH = '/agents/triage'
const isReal = hasSpire() || process.env.KEYLESS_TEST_SPIRE === 'required'
const issuer = isReal ? 'a SPIRE server issued through its agent' : 'is signed as SPIRE signs (no SPIRE on the PATH)'

let dir: string
let spire: Spire | undefined
let issued: Pick<Spire, 'bundle' | 'svid'>

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'sp-'))
  if (isReal) spire = await openSpire(dir, 'acme.test', PATH)
  issued = spire ?? (await signedAlike())
}, 60_000)

afterAll(async () => {
  await spire?.stop()
  rmSync(dir, { recursive: true, force: true })
})

async function signedAlike(): Promise<Pick<Spire, 'bundle' | 'svid'>> {
  const acme = await trustDomain('acme.test', Date.now())
  const { pem, key } = await acme.issue(PATH)
  return { bundle: acme.pem, svid: { chain: pem, key } }
}

it(`knows a workload by an X.509-SVID that ${issuer}`, async () => {
  const file = join(dir, 'bundle.pem')
  writeFileSync(file, issued.bundle)
  const trust = [x509TrustSchema.parse({ trust_domain: 'acme.test', bundle: { file } })]
  const chain = issued.svid.chain.split(/(?<=-----END CERTIFICATE-----)\s+/).filter((pem) => pem.includes('BEGIN'))
  const der = chain.map((pem) => Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ''), 'base64'))
  expect(await createX509Svids({ trust, clock: systemClock }).verify(der)).toMatchObject({
    id: `spiffe://acme.test${PATH}`,
    issuer: 'acme.test',
    cnf: { 'x5t#S256': expect.any(String) },
  })
})
