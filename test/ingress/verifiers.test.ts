import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadAuthority } from '../../gateway/ingress/certificate.ts'
import { createLeafKey } from '../../gateway/ingress/leaf.ts'
import { readRoot } from '../../gateway/ingress/root.ts'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { type Case, isThere, verifiers } from './verifiers.fixture.ts'

const LONG = `${'a'.repeat(60)}.${'b'.repeat(60)}.example.com` // longer than a common name may be
const SERVICES = ['api.github.com', 'xn--bcher-kva.example', LONG, '198.51.100.7', '2001:db8::1']
const UNMANAGED = ['unmanaged.test', '203.0.113.77', '2001:db8::77']
const STRANGERS = [
  'evil.test',
  'github.com',
  'notapi.github.com',
  'api.github.com.evil.test',
  '203.0.113.9',
  '2001:db8::2',
]

interface Expected extends Case {
  readonly isAccepted: boolean
}

let dir: string
const cases: Expected[] = []

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-verifiers-'))
  // Services with names and addresses, with names alone (then no address is permitted), and none at all.
  for (const [name, hosts] of Object.entries({ mixed: SERVICES, names: ['api.github.com'], none: [] })) {
    const place = join(dir, name)
    await mkdir(place)
    cases.push(...(await presented(place, hosts)), ...(await stolen(place, hosts)))
  }
}, 30_000)
afterAll(() => rm(dir, { recursive: true }))

/** What the gateway itself presents, to a client that trusts its whole `caPem`, and to one that has only the file on disk. */
async function presented(place: string, hosts: readonly string[]): Promise<Expected[]> {
  const authority = await loadAuthority(place, systemClock, { hosts, days: 90 })
  const trust = await save(join(place, 'all.pem'), authority.caPem)
  const saved = [...hosts, ...UNMANAGED].map(async (host): Promise<Expected[]> => {
    const leaf = authority.issueLeaf(host)
    const chain = await save(join(place, `given-${fileName(host)}`), leaf.cert)
    const key = await save(join(place, 'given.key'), leaf.key)
    const isManaged = hosts.includes(host)
    return [
      { host, chain, key, trust, isAccepted: true },
      { host, chain, key, trust: join(place, 'ca.pem'), isAccepted: isManaged },
    ]
  })
  return (await Promise.all(saved)).flat()
}

/** What a thief of `ca.key` can sign, to clients that trust all of `caPem`. */
async function stolen(place: string, hosts: readonly string[]): Promise<Expected[]> {
  const issuer = readRoot(await readFile(join(place, 'ca.key'), 'utf8'), 0, [])
  const thief = createLeafKey()
  const key = await save(join(place, 'stolen.key'), thief.pem)
  const now = Date.now()
  const saved = [...hosts.slice(0, 1), ...STRANGERS].map(async (host) => {
    const leaf = thief.certify({ issuer, host, notBeforeMs: now - 60_000, notAfterMs: now + 60_000_000 })
    const chain = await save(join(place, `stolen-${fileName(host)}`), leaf + issuer.chain)
    return { host, chain, key, trust: join(place, 'all.pem'), isAccepted: hosts.includes(host) }
  })
  return Promise.all(saved)
}

function fileName(host: string): string {
  return `${host.replaceAll(':', '_').slice(0, 40)}.pem`
}

async function save(file: string, text: string): Promise<string> {
  await writeFile(file, text)
  return file
}

const present = verifiers.filter(({ command }) => isThere(command))

test.each(present)(
  '$name accepts the gateway for every host, and whoever stole ca.key for no host of others',
  async ({ verify }) => {
    const verdicts = await verify(cases, dir)
    const told = cases.map(({ host, chain, trust }, i) => `${chain} by ${trust} for ${host}: ${verdicts[i]}`)
    expect(told).toEqual(
      cases.map(({ host, chain, trust, isAccepted }) => `${chain} by ${trust} for ${host}: ${isAccepted}`),
    )
  },
  150_000,
)

test('the verifiers that CI installs are there', () => {
  const missing = verifiers.filter(({ command }) => !isThere(command)).map(({ name }) => name)
  expect(missing.filter((name) => process.env.CI && !/Go|Java/.test(name))).toEqual([])
})
