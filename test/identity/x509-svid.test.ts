import { X509Certificate } from 'node:crypto'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { anchorsOf } from '../../gateway/identity/trust-bundle.ts'
import { type X509Trust, x509TrustSchema } from '../../gateway/identity/trust-x509.ts'
import { createX509Svids } from '../../gateway/identity/x509-svid.ts'
import { manualClock } from '../rig/clock.ts'
import {
  bundleDocument,
  extension,
  type LeafChange,
  PURPOSES,
  type Signed,
  type TrustDomain,
  thumbprint,
  trustDomain,
  USAGES,
} from './svid.fixture.ts'

const NOW = Date.UTC(2026, 5, 1, 12)
const PATH = '/agents/triage'
const ID = `spiffe://acme.test${PATH}`
const NAME_CONSTRAINTS = '2.5.29.30'

let dir: string
let acme: TrustDomain
let other: TrustDomain

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'svid-'))
  acme = await trustDomain('acme.test', NOW)
  other = await trustDomain('other.test', NOW)
})
afterAll(() => rmSync(dir, { recursive: true, force: true }))

let files = 0
function bundleOf(...domains: readonly TrustDomain[]): string {
  const file = join(dir, `bundle-${files++}.pem`)
  writeFileSync(file, domains.map(({ pem }) => pem).join(''))
  return file
}

function rowOf(file: string, change: object = {}): X509Trust {
  return x509TrustSchema.parse({ trust_domain: 'acme.test', bundle: { file }, ...change })
}

function verifier(rows: readonly X509Trust[] = [rowOf(bundleOf(acme))], nowMs = NOW) {
  return createX509Svids({ trust: rows, clock: manualClock(nowMs) })
}

const refusal = (detail: string | RegExp) =>
  expect.objectContaining({
    code: 'client_invalid',
    message: typeof detail === 'string' ? expect.stringContaining(detail) : expect.stringMatching(detail),
  })

describe('an X.509-SVID as SPIRE signs it', () => {
  it('is the workload that its one URI names, bound to its certificate', async () => {
    const svid = await acme.issue(PATH)
    expect(await verifier().verify([svid.der])).toEqual({
      id: ID,
      kind: 'x509-svid',
      issuer: 'acme.test',
      attributes: { spiffe_id: ID, serial: new X509Certificate(svid.der).serialNumber },
      expiresAt: NOW / 1000 + 3600,
      cnf: { 'x5t#S256': thumbprint(svid.der) },
    })
  })

  it('may have DNS names besides, which say nothing', async () => {
    const svid = await acme.issue(PATH, { dns: ['other.example', 'x, URI:spiffe://acme.test/admin'] })
    expect((await verifier().verify([svid.der])).id).toBe(ID)
  })

  it('may come through downstream servers, in any order, and expires with the first of them', async () => {
    const middle = await acme.downstream({ notAfterMs: NOW + 600_000 })
    const lower = await middle.downstream()
    const svid = await lower.issue(PATH)
    for (const rest of [
      [lower.der, middle.der],
      [middle.der, lower.der],
      [other.der, middle.der, acme.der, lower.der],
    ])
      expect((await verifier().verify([svid.der, ...rest])).expiresAt).toBe(NOW / 1000 + 600)
  })

  it('is read from a SPIFFE bundle document too', async () => {
    const file = join(dir, 'bundle.json')
    writeFileSync(file, bundleDocument([other, acme]))
    expect((await verifier([rowOf(file)]).verify([(await acme.issue(PATH)).der])).id).toBe(ID)
  })

  it('is another agent where the row says so, and none where no row fits', async () => {
    const agents = [{ match: { spiffe_id: ID }, agent: 'triage' }]
    const mapped = verifier([rowOf(bundleOf(acme), { agents })])
    expect((await mapped.verify([(await acme.issue(PATH)).der])).id).toBe('triage')
    await expect(mapped.verify([(await acme.issue('/agents/triage2')).der])).rejects.toEqual(refusal('no row'))
  })

  it('may lack an extended key usage, and may have client authentication alone', async () => {
    for (const purposes of [undefined, [PURPOSES.clientAuth]])
      expect((await verifier().verify([(await acme.issue(PATH, { purposes })).der])).id).toBe(ID)
  })
})

describe('refuses a certificate', () => {
  const wrongLeaves: readonly (readonly [string, LeafChange, string | RegExp])[] = [
    [
      'of another trust domain, though the own CA signed it',
      { uris: ['spiffe://other.test/a'] },
      'other.test is not trusted',
    ],
    ['with two URIs', { uris: [ID, 'spiffe://acme.test/agents/b'] }, '2 URIs'],
    ['with the same URI twice', { uris: [ID, ID] }, '2 URIs'],
    ['with a SPIFFE ID and a web address', { uris: [ID, 'https://acme.test/'] }, '2 URIs'],
    ['with DNS names alone', { uris: [], dns: ['triage.acme.test'] }, 'a DNS name is no identity'],
    ['with a DNS name that spells a URI', { uris: [], dns: [`a, URI:${ID}`] }, 'a DNS name is no identity'],
    ['without any name', { uris: [] }, 'no URI'],
    ['of the trust domain itself', { uris: ['spiffe://acme.test'] }, 'not the SPIFFE ID of a workload'],
    ['of the root path', { uris: ['spiffe://acme.test/'] }, 'not the SPIFFE ID of a workload'],
    ['of a path that climbs', { uris: ['spiffe://acme.test/a/../agents/triage'] }, 'not the SPIFFE ID'],
    ['with a query', { uris: [`${ID}?x=1`] }, 'not the SPIFFE ID'],
    ['with a port', { uris: [`spiffe://acme.test:443${PATH}`] }, 'not the SPIFFE ID'],
    ['with an upper-case domain', { uris: [`spiffe://ACME.test${PATH}`] }, 'not the SPIFFE ID'],
    ['with a zero byte after the id', { uris: [`${ID}\0.other.test`] }, 'not the SPIFFE ID'],
    ['of a CA', { isAuthority: true }, 'that of a CA'],
    ['that may sign certificates', { usages: USAGES.digitalSignature | USAGES.keyCertSign }, 'may sign certificates'],
    ['that may sign revocation lists', { usages: USAGES.digitalSignature | USAGES.cRLSign }, 'revocation lists'],
    ['without digitalSignature', { usages: USAGES.keyAgreement }, 'digitalSignature'],
    ['without key usage', { usages: undefined }, 'no critical key usage'],
    ['whose key usage is not critical', { isUsageCritical: false }, 'no critical key usage'],
    ['for servers alone', { purposes: [PURPOSES.serverAuth] }, 'client authentication'],
    ['for any purpose, which does not name ours', { purposes: ['2.5.29.37.0'] }, 'client authentication'],
    ['that has expired', { notAfterMs: NOW - 31_000 }, 'it expired at'],
    ['that is not valid yet', { notBeforeMs: NOW + 31_000 }, 'valid only from'],
    ['signed with SHA-1', { hash: 'SHA-1' }, 'too weak'],
    [
      'with an unknown critical extension',
      { more: [extension('1.3.6.1.4.1.99999.1', true, '0500')] },
      'not understood',
    ],
    ['with an extension twice', { more: [extension('2.5.29.15', true, '03020780')] }, '2.5.29.15 twice'],
  ]
  it.each(wrongLeaves)('%s', async (_why, change, detail) => {
    const svid = await acme.issue(PATH, change)
    await expect(verifier().verify([svid.der])).rejects.toEqual(refusal(detail))
  })

  it('only beyond the clock skew', async () => {
    const svid = await acme.issue(PATH, { notBeforeMs: NOW, notAfterMs: NOW + 60_000 })
    const at = (nowMs: number) => verifier(undefined, nowMs).verify([svid.der])
    for (const nowMs of [NOW - 30_000, NOW, NOW + 60_000, NOW + 90_000]) expect((await at(nowMs)).id).toBe(ID)
    await expect(at(NOW - 31_000)).rejects.toEqual(refusal('valid only from')) // certificates know whole seconds
    await expect(at(NOW + 90_001)).rejects.toEqual(refusal('it expired'))
  })

  it('that another CA signed under the same names', async () => {
    const imitation = await trustDomain('acme.test', NOW)
    await expect(verifier().verify([(await imitation.issue(PATH)).der])).rejects.toEqual(refusal('no certificate'))
    const both = [(await imitation.issue(PATH)).der, imitation.der]
    await expect(verifier().verify(both)).rejects.toEqual(refusal('no certificate'))
  })

  it('of a domain that is trusted, signed by the CA of another that is trusted too', async () => {
    const rows = [rowOf(bundleOf(acme)), rowOf(bundleOf(other), { trust_domain: 'other.test' })]
    const svid = await other.issue(PATH, { uris: [ID] })
    await expect(verifier(rows).verify([svid.der])).rejects.toEqual(refusal('no certificate of the bundle'))
    expect((await verifier(rows).verify([(await other.issue('/a')).der])).issuer).toBe('other.test')
  })

  it('whose intermediate is missing, or is a workload itself', async () => {
    const middle = await acme.downstream()
    await expect(verifier().verify([(await middle.issue(PATH)).der])).rejects.toEqual(refusal('no certificate'))
    const workload = await acme.downstream({ isAuthority: false })
    const forged = [(await workload.issue('/agents/admin')).der, workload.der]
    await expect(verifier().verify(forged)).rejects.toEqual(refusal('issuer is not a CA'))
  })

  it('whose intermediate expired, may not sign, or is one too many', async () => {
    const cases = [
      { change: { notAfterMs: NOW - 31_000 }, detail: 'a CA of its path expired' },
      { change: { usages: USAGES.cRLSign }, detail: 'may not sign certificates' },
    ]
    for (const { change, detail } of cases) {
      const middle = await acme.downstream(change)
      const chain = [(await middle.issue(PATH)).der, middle.der]
      await expect(verifier().verify(chain), detail).rejects.toEqual(refusal(detail))
    }
    const root = await trustDomain('acme.test', NOW, { pathLength: 0 })
    const middle = await root.downstream()
    const rows = [rowOf(bundleOf(root))]
    expect((await verifier(rows).verify([(await root.issue(PATH)).der])).id).toBe(ID)
    const chain = [(await middle.issue(PATH)).der, middle.der]
    await expect(verifier(rows).verify(chain)).rejects.toEqual(refusal('allows 0 CAs below it, and there are 1'))
  })

  it('when its anchor has expired', async () => {
    const old = await trustDomain('acme.test', NOW, { notAfterMs: NOW - 31_000 })
    await expect(verifier([rowOf(bundleOf(old))]).verify([(await old.issue(PATH)).der])).rejects.toEqual(
      refusal('a CA of its path expired'),
    )
  })

  it('that is in the bundle itself: an anchor is a CA', async () => {
    const svid = await acme.issue(PATH)
    const file = join(dir, 'leaf.pem')
    writeFileSync(file, svid.pem)
    await expect(verifier([rowOf(file)]).verify([svid.der])).rejects.toEqual(refusal('certificate 1 is not a CA'))
  })

  it('that is none, of whatever bytes', async () => {
    const svid = await acme.issue(PATH)
    for (const der of [Buffer.alloc(0), Buffer.from(svid.pem), Buffer.concat([svid.der, Buffer.from('00', 'hex')])])
      await expect(verifier().verify([der])).rejects.toEqual(refusal('it is no certificate'))
    await expect(verifier().verify([])).rejects.toEqual(refusal('there is none'))
    await expect(verifier().verify(Array(9).fill(svid.der))).rejects.toEqual(refusal('at most 7'))
  })

  it('with any one bit changed', async () => {
    const { der } = await acme.issue(PATH)
    const svids = verifier()
    await fc.assert(
      fc.asyncProperty(fc.nat(der.length - 1), fc.nat(7), async (at, bit) => {
        const changed = Buffer.from(der)
        changed[at] = (changed[at] ?? 0) ^ (1 << bit)
        await expect(svids.verify([changed])).rejects.toMatchObject({ code: 'client_invalid' })
      }),
      { numRuns: 400 },
    )
  })

  it('of random bytes after a real one, without harm', async () => {
    const { der } = await acme.issue(PATH)
    const svids = verifier()
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 64 }), async (junk) => {
        await expect(svids.verify([der, Buffer.from(junk)])).rejects.toMatchObject({ code: 'client_invalid' })
      }),
    )
  })
})

describe('name constraints of a CA', () => {
  // SEQUENCE { [0] or [1] { SEQUENCE { [6] host } } }
  const constraint = (tree: 'a0' | 'a1', form: string, host: string) => {
    const wrap = (tag: string, hex: string) => tag + (hex.length / 2).toString(16).padStart(2, '0') + hex
    const hex = wrap('30', wrap(tree, wrap('30', wrap(form, Buffer.from(host).toString('hex')))))
    return { more: [extension(NAME_CONSTRAINTS, true, hex)] }
  }
  const verified = async (change: object, leaf: LeafChange = {}) => {
    const middle = await acme.downstream(change)
    return verifier().verify([(await middle.issue(PATH, leaf)).der, middle.der])
  }

  it('hold for the host of the URI', async () => {
    expect((await verified(constraint('a0', '86', 'acme.test'))).id).toBe(ID)
    expect((await verified(constraint('a1', '86', 'other.test'))).id).toBe(ID)
    await expect(verified(constraint('a0', '86', 'other.test'))).rejects.toEqual(refusal('outside'))
    await expect(verified(constraint('a0', '86', '.acme.test'))).rejects.toEqual(refusal('outside')) // below it only
    await expect(verified(constraint('a1', '86', 'acme.test'))).rejects.toEqual(refusal('outside'))
    expect((await verified(constraint('a0', '86', '.test'))).id).toBe(ID)
    await expect(verified(constraint('a0', '86', '.tes'))).rejects.toEqual(refusal('outside')) // not at the end
  })

  it('on other forms refuse whoever has such a name', async () => {
    expect((await verified(constraint('a0', '82', 'acme.test'))).id).toBe(ID)
    const withDns = verified(constraint('a0', '82', 'acme.test'), { dns: ['a.acme.test'] })
    await expect(withDns).rejects.toEqual(refusal('outside'))
  })
})

describe('a trust bundle', () => {
  it('is read anew at each use: a new CA counts at once, one taken out no more', async () => {
    const next = await trustDomain('acme.test', NOW)
    const [old, fresh] = await Promise.all([acme.issue(PATH), next.issue(PATH)])
    const file = bundleOf(acme)
    const svids = verifier([rowOf(file)])
    const accepts = async (svid: Signed) =>
      svids.verify([svid.der]).then(
        () => true,
        () => false,
      )
    const turnTo = (...domains: readonly TrustDomain[]) => renameSync(bundleOf(...domains), file)

    expect([await accepts(old), await accepts(fresh)]).toEqual([true, false])
    turnTo(acme, next)
    expect([await accepts(old), await accepts(fresh)]).toEqual([true, true])
    turnTo(next)
    expect([await accepts(old), await accepts(fresh)]).toEqual([false, true])
  })

  it('that is missing, empty or broken trusts nobody, and the refusal does not show where it is', async () => {
    const svid = await acme.issue(PATH)
    const broken = join(dir, 'broken.pem')
    for (const [text, why] of [
      ['', 'no certificate'],
      ['-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n', 'certificate 1 cannot be used'],
      ['{"keys": 1}', 'without `keys`'],
      ['{"keys": [{"use": "x509-svid"}]}', 'exactly one certificate'],
    ] as const) {
      writeFileSync(broken, text)
      await expect(verifier([rowOf(broken)]).verify([svid.der])).rejects.toEqual(refusal(why))
    }
    const missing = verifier([rowOf(join(dir, 'gone.pem'))]).verify([svid.der])
    await expect(missing).rejects.toEqual(refusal('ENOENT'))
    await missing.catch((cause: Error) => expect(cause.message).not.toContain(dir))
  })

  it('may hold comments and many CAs', () => {
    expect(anchorsOf(`# acme\n${acme.pem}\nsubject=other\n${other.pem}`)).toHaveLength(2)
  })
})
