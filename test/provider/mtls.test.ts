/** Client certificates of the gateway's own authority, judged by OpenSSL and by a TLS server that demands them. */
import { execFileSync } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createSecureContext } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { systemClock } from '../../gateway/protocol/clock.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import type { Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { certifyingIn, openClientRoots, rotateClientRoots } from '../../gateway/settings/keys-client-ca.ts'
import { providerConformance } from '../conformance/provider.ts'
import { fakeClock, grant, plain, service } from '../lease/lease.fixture.ts'
import { makeAuthority } from '../upstream/certificate.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-mtls-'))
const keys = join(dir, 'keys')
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const certifyClient = certifyingIn(keys, systemClock)
const shown = service({ slots: [{ in: 'certificate' }] })

beforeAll(async () => {
  await openClientRoots(keys, Date.now())
  const authority = await makeAuthority()
  const own = await authority.issue(['ana'])
  const other = await authority.issue(['ben'])
  const ended = await authority.issue(['old'], { notAfter: new Date(Date.now() - 1000) })
  for (const [name, text] of Object.entries({
    cert: own.cert,
    key: own.key,
    otherKey: other.key,
    ended: ended.cert,
    endedKey: ended.key,
  }))
    writeFileSync(join(dir, name), text)
})

function provider(o: object = {}, tools: Parameters<typeof providerTools>[1] = {}): Provider {
  return createProvider(
    credentialSchema.parse({ provider: 'mtls', ...o }),
    providerTools(dir, { certifyClient, ...tools }),
  )
}

providerConformance(
  'mtls',
  () => ({
    working: () => provider({ ttl_s: 300 }),
    isEphemeral: true,
    lifeS: 300,
    wider: () => [
      ['another name', provider({ ttl_s: 300, uri: 'spiffe://acme.test/{agent}' })],
      ['a longer life', provider({ ttl_s: 600 })],
      ['a certificate that is kept', provider({ certificate: { file: 'cert' }, key: { file: 'key' } })],
    ],
    failing: () => [
      [
        'no certificate',
        'credential_unconfigured',
        provider({ certificate: { file: 'absent' }, key: { file: 'key' } }),
      ],
      [
        "another one's key",
        'credential_rejected',
        provider({ certificate: { file: 'cert' }, key: { file: 'otherKey' } }),
      ],
      [
        'a key for a certificate',
        'credential_rejected',
        provider({ certificate: { file: 'key' }, key: { file: 'key' } }),
      ],
      [
        'a certificate that has ended',
        'credential_rejected',
        provider({ certificate: { file: 'ended' }, key: { file: 'endedKey' } }),
      ],
    ],
    hanging: () => provider({ certificate: { exec: ['sleep', '60'] }, key: { file: 'key' } }),
    secrets: () => [readFileSync(join(dir, 'key'), 'utf8')],
  }),
  [],
  shown,
)

async function certificate(o: object = {}, on: Grant = grant(), ttlS = 900): Promise<X509Certificate> {
  const signal = new AbortController().signal
  const credential = await provider(o).issue({ service: shown, grant: on, ttlS, role: undefined }, signal)
  return new X509Certificate(credential.parts?.certificate?.reveal() ?? '')
}

describe('a certificate of the client CA', () => {
  test('names the agent, its task and its lineage, and nobody else', async () => {
    const agent = { ...grant().agent, id: 'spiffe://acme.test/agents/triage' }
    const { subject, subjectAltName } = await certificate(
      {},
      grant({ agent, task: { id: 'task-7', purpose: '' }, lineageHash: 'L1' }),
    )
    expect(subject).toBe('CN=spiffe://acme.test/agents/triage\nOU=task task-7\nOU=lineage L1')
    expect(subjectAltName).toBe('URI:spiffe://acme.test/agents/triage')
  })

  test('cannot be made to name anything else by what an agent is called', async () => {
    const agent = { ...grant().agent, id: 'x, DNS:admin.test\nCN=root/#' }
    const { subjectAltName, subject } = await certificate({}, grant({ agent }))
    expect(subjectAltName).toBe('URI:urn:keyless:default:x%2C%20DNS%3Aadmin.test%0ACN%3Droot%2F%23')
    expect(subject.split('\n')).toHaveLength(3)
    const named = await certificate(
      { uri: 'spiffe://acme.test/{tenant}/{task}' },
      grant({ agent, task: { id: 'a/../b', purpose: '' } }),
    )
    expect(named.subjectAltName).toBe('URI:spiffe://acme.test/default/a%2F..%2Fb')
  })

  test('lives as long as policy and settings allow, less than an hour, and began a little ago', async () => {
    for (const [o, ttlS, lifeS] of [
      [{}, 900, 900],
      [{}, 120, 120],
      [{ ttl_s: 3540 }, 9000, 3540],
    ] as const) {
      const { validFromDate, validToDate } = await certificate(o, grant(), ttlS)
      expect(Math.abs(validToDate.getTime() - Date.now() - lifeS * 1000)).toBeLessThan(3000)
      expect(Date.now() - validFromDate.getTime()).toBeGreaterThan(200_000)
    }
    expect(() => provider({ ttl_s: 3600 })).toThrow(/3540/)
  })

  test('is taken by OpenSSL for a client and not for a server', async () => {
    writeFileSync(join(dir, 'leaf.pem'), (await certificate()).toString())
    const verify = (purpose: string) =>
      execFileSync(
        'openssl',
        ['verify', '-x509_strict', '-purpose', purpose, '-CAfile', join(keys, 'client-ca.pem'), join(dir, 'leaf.pem')],
        { stdio: 'pipe' },
      ).toString()
    expect(verify('sslclient')).toContain('OK')
    expect(() => verify('sslserver')).toThrow()
  })

  test('comes with a key of its own, and shows as one object however often it is attached', async () => {
    const one = provider()
    const request = { service: shown, grant: grant(), ttlS: 900, role: undefined }
    const [a, b] = [
      await one.issue(request, new AbortController().signal),
      await one.issue(request, new AbortController().signal),
    ]
    expect(a.secret.reveal()).not.toBe(b.secret.reveal())
    const [first, again, other] = [a, a, b].map(
      async (credential) => (await one.attach(credential, plain({ service: shown }))).certificate,
    )
    expect(await first).toBe(await again)
    expect((await first)?.id).not.toBe((await other)?.id)
    expect(() => createSecureContext({})).not.toThrow()
    await expect((async () => (await first)?.secureContext({}))()).resolves.toBeDefined()
  })
})

describe('the client CA', () => {
  test('keeps its keys to itself and its certificates for all', () => {
    expect(statSync(join(keys, 'client-ca.key')).mode & 0o777).toBe(0o600)
    expect(statSync(join(keys, 'client-ca.pem')).mode & 0o777).toBe(0o644)
    expect(readFileSync(join(keys, 'client-ca.pem'), 'utf8')).not.toContain('PRIVATE')
  })

  test('signs with a new root only when upstreams had a day to learn of it, and then with that', async () => {
    const at = join(dir, 'rotated')
    const clock = fakeClock(Date.now())
    const signer = async () =>
      new X509Certificate(
        (
          await certifyingIn(at, clock)({ uri: 'urn:x', agent: 'a', task: 't', lineageHash: '', lifeS: 60 })
        ).certificate.reveal(),
      ).issuer
    const before = await signer()
    await rotateClientRoots(at, clock.nowMs())
    expect(await signer()).toBe(before)
    expect(readFileSync(join(at, 'client-ca.pem'), 'utf8').match(/BEGIN/g)).toHaveLength(2)
    clock.advance(86_400_000)
    expect(await signer()).not.toBe(before)
  })

  test('is one for all who start at once', async () => {
    const at = join(dir, 'raced')
    const all = await Promise.all(Array.from({ length: 4 }, () => openClientRoots(at, Date.now())))
    expect(new Set(all.map(([root]) => root?.certificate.fingerprint256)).size).toBe(1)
  })

  test('says which file is wrong', async () => {
    const at = join(dir, 'wrong')
    await openClientRoots(at, Date.now())
    writeFileSync(join(at, 'client-ca.key'), 'nonsense')
    await expect(openClientRoots(at, Date.now())).rejects.toThrow(/client-ca\.key cannot be used/)
    await expect(
      certifyingIn(at, systemClock)({ uri: 'urn:x', agent: 'a', task: 't', lineageHash: '', lifeS: 60 }),
    ).rejects.toMatchObject({ code: 'credential_unconfigured' })
  })
})
