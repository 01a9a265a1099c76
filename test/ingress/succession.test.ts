import { X509Certificate } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type CertificateAuthority, loadAuthority } from '../../gateway/ingress/certificate.ts'
import { makeRoot } from '../../gateway/ingress/root.ts'
import { rotateRoot, viewRoots } from '../../gateway/ingress/rotation.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const GITHUB = ['api.github.com']

let dir: string
let clock: ManualClock
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-roots-'))
  clock = manualClock()
})
afterEach(() => rm(dir, { recursive: true }))

const load = (hosts: readonly string[] | undefined, days = 90) => loadAuthority(dir, clock, { hosts, days })

/** Certificates of a PEM text, by what tells them apart. */
function inside(pem: string): string[] {
  return (pem.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g) ?? []).map(
    (one) => new X509Certificate(one).fingerprint256,
  )
}

/** The root that a leaf for the host hangs on. */
function topOf(authority: CertificateAuthority, host: string): string {
  return inside(authority.issueLeaf(host).cert).at(-1) ?? ''
}

const onDisk = async () => inside(await readFile(join(dir, 'ca.pem'), 'utf8'))
const keyFiles = async () => (await readdir(dir)).filter((name) => name.endsWith('.key')).sort()

describe('a root', () => {
  test('is succeeded at two thirds of its life, gives over at five sixths, and goes when it ends', async () => {
    const authority = await load(GITHUB)
    const [first = ''] = await onDisk()
    clock.advance(59 * DAY_MS)
    await authority.refresh()
    expect(await onDisk()).toEqual([first])
    clock.advance(1 * DAY_MS)
    await authority.refresh()
    const [, second = ''] = await onDisk()
    expect(await onDisk()).toEqual([first, second])
    expect(topOf(authority, 'api.github.com')).toBe(first)
    clock.advance(15 * DAY_MS)
    await authority.refresh()
    expect(topOf(authority, 'api.github.com')).toBe(second)
    expect(await onDisk()).toEqual([second, first]) // who reads one certificate only gets the one that signs
    expect(inside(authority.caPem).slice(0, 2)).toEqual([second, first])
    clock.advance(15 * DAY_MS + HOUR_MS)
    await authority.refresh()
    expect(await onDisk()).toEqual([second])
    expect(await keyFiles()).toEqual(['ca.1.key'])
  })

  test('for other services signs for their hosts at once, and for those before when agents had time to fetch it', async () => {
    const before = topOf(await load(GITHUB), 'api.github.com')
    const authority = await load([...GITHUB, 'api.openai.com'])
    const [, added = ''] = await onDisk()
    expect([topOf(authority, 'api.github.com'), topOf(authority, 'api.openai.com')]).toEqual([before, added])
    clock.advance(15 * DAY_MS)
    expect(topOf(authority, 'api.github.com')).toBe(added)
    expect(inside(authority.caPem)).toContain(before) // leaves that it signed are still about
    clock.advance(15 * DAY_MS)
    expect(inside(authority.caPem)).not.toContain(before)
  })

  test('stays when services are taken away, and when nothing changed', async () => {
    await load([...GITHUB, 'api.openai.com'])
    await load(GITHUB)
    await load([])
    expect(await keyFiles()).toEqual(['ca.key'])
  })

  test('is not made by turns when replicas have different services during a roll-out', async () => {
    const [old, fresh] = [await load(['old.test']), await load(['new.test'])]
    for (let minute = 0; minute < 20; minute++) {
      await old.refresh()
      await fresh.refresh()
    }
    expect(await keyFiles()).toEqual(['ca.1.key', 'ca.key'])
    for (let day = 0; day < 200; day += 5) {
      clock.advance(5 * DAY_MS)
      await old.refresh()
      await fresh.refresh()
      expect((await keyFiles()).length).toBeLessThan(8)
      expect([topOf(old, 'old.test'), topOf(fresh, 'new.test')].every((top) => inside(old.caPem).includes(top))).toBe(
        true,
      )
    }
  })
})

describe('hosts of no service', () => {
  test('are signed for by a root that is never written, and is another at each start', async () => {
    const [one, other] = [await load(GITHUB), await load(GITHUB)]
    const tops = [topOf(one, 'evil.test'), topOf(other, 'evil.test')]
    expect(new Set(tops).size).toBe(2)
    expect(inside(one.caPem)).toEqual([...(await onDisk()), tops[0]])
    expect(await readdir(dir)).toHaveLength(2)
    clock.advance(400 * DAY_MS)
    await one.refresh()
    expect(inside(one.caPem)).toContain(topOf(one, 'evil.test'))
  })

  test('are signed for by the root on disk where settings say any', async () => {
    const authority = await load(undefined)
    expect(inside(authority.caPem)).toEqual([topOf(authority, 'evil.test')])
    const [root] = await viewRoots(dir, clock.nowMs())
    expect(root?.names).toBeUndefined()
  })

  test('can be signed for by nobody else once settings say services', async () => {
    const any = topOf(await load(undefined), 'evil.test')
    const authority = await load(GITHUB)
    expect(topOf(authority, 'evil.test')).toBe(any) // agents trust it still
    clock.advance(31 * DAY_MS)
    await authority.refresh()
    expect(await keyFiles()).toEqual(['ca.1.key'])
    expect(inside(authority.caPem)).not.toContain(any)
    expect(inside(authority.caPem)).toContain(topOf(authority, 'evil.test'))
  })
})

test('a pair from before name constraints goes on signing, with a constrained successor beside it', async () => {
  const pair = await makeRoot({ hosts: undefined, lifeMs: 365 * DAY_MS, nowMs: clock.nowMs(), title: 'Keyless CA' })
  await writeFile(join(dir, 'ca.key'), pair)
  await writeFile(join(dir, 'ca.pem'), pair.slice(pair.indexOf('-----BEGIN CERTIFICATE')))
  const [former] = await onDisk()
  const authority = await load(GITHUB)
  expect(topOf(authority, 'api.github.com')).toBe(former)
  expect(await onDisk()).toHaveLength(2)
  expect((await viewRoots(dir, clock.nowMs())).map(({ names }) => names)).toEqual([undefined, GITHUB])
})

describe('by command', () => {
  test('a root is added, and agents get time', async () => {
    const authority = await load(GITHUB)
    const [first] = await onDisk()
    await rotateRoot(dir, clock.nowMs(), false)
    await authority.refresh()
    expect(topOf(authority, 'api.github.com')).toBe(first)
    expect(await onDisk()).toHaveLength(2)
    clock.advance(15 * DAY_MS)
    expect(topOf(authority, 'api.github.com')).not.toBe(first)
  })

  test('a root takes the place of all others at once, and leaves of theirs are thrown away', async () => {
    const authority = await load(GITHUB)
    const { generation } = authority
    const [stolen = ''] = await onDisk()
    await rotateRoot(dir, clock.nowMs(), true)
    await authority.refresh()
    expect(authority.generation).not.toBe(generation)
    expect(await onDisk()).toEqual([topOf(authority, 'api.github.com')])
    expect(inside(authority.caPem)).not.toContain(stolen)
    expect((await viewRoots(dir, clock.nowMs()))[0]?.names).toEqual(GITHUB)
  })

  test('nothing is rotated where there is nothing, or an authority that is not ours', async () => {
    await expect(rotateRoot(dir, clock.nowMs(), false)).rejects.toThrow('holds no CA')
    const pair = await makeRoot({ hosts: undefined, lifeMs: 9 * DAY_MS, nowMs: clock.nowMs(), title: 'Acme' })
    const cut = pair.indexOf('-----BEGIN CERTIFICATE')
    await writeFile(join(dir, 'ca.key'), pair.slice(0, cut))
    await writeFile(join(dir, 'ca.pem'), pair.slice(cut))
    await expect(rotateRoot(dir, clock.nowMs(), true)).rejects.toThrow('was not made by Keyless')
    await load(GITHUB)
    expect(await keyFiles()).toEqual(['ca.key'])
  })
})

test('an authority of an operator that permits some hosts leaves the others to the root of the process', async () => {
  const pair = await makeRoot({ hosts: GITHUB, lifeMs: 90 * DAY_MS, nowMs: clock.nowMs(), title: 'Acme' })
  const cut = pair.indexOf('-----BEGIN CERTIFICATE')
  await writeFile(join(dir, 'ca.key'), pair.slice(0, cut))
  await writeFile(join(dir, 'ca.pem'), pair.slice(cut)) // an issuing CA, and the one above it
  const authority = await load(['api.openai.com'])
  expect(inside(authority.caPem).slice(0, 2)).toEqual(inside(pair.slice(cut)))
  expect(topOf(authority, 'api.github.com')).toBe(inside(pair.slice(cut))[1])
  expect(topOf(authority, 'api.openai.com')).toBe(inside(authority.caPem)[2])
})

test('a directory that cannot be read for a while changes nothing but a warning', async () => {
  const authority = await load(GITHUB)
  const { caPem } = authority
  const key = await readFile(join(dir, 'ca.key'))
  await writeFile(join(dir, 'ca.key'), 'half')
  await authority.refresh()
  expect(authority.trouble).toMatch(/ca\.key holds no P-256 key.*stay in use/s)
  expect(authority.caPem).toBe(caPem)
  await writeFile(join(dir, 'ca.key'), key)
  await authority.refresh()
  expect(authority.trouble).toBeUndefined()
})

/** What can happen to a fleet within one step of time. */
const step = fc.record({
  hours: fc.integer({ min: 1, max: 12 }),
  rotate: fc.constantFrom(false, false, false, false, true),
  restart: fc.boolean(),
  torn: fc.boolean(),
})

test('whatever happens, an agent that fetched ca.pem within a sixth of a life trusts what replicas present', async () => {
  const terms = { hosts: GITHUB, days: 6 }
  const patienceMs = DAY_MS - 13 * HOUR_MS // a step passes before the replicas look
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 12, maxLength: 30 }), async (steps) => {
      const place = await mkdtemp(join(dir, 'fleet-'))
      const now = manualClock()
      const late = { nowMs: () => now.nowMs() - 60_000, elapsedMs: () => 0 } // replicas' clocks differ
      let fleet = [await loadAuthority(place, now, terms), await loadAuthority(place, late, terms)]
      const fetched: { readonly atMs: number; readonly roots: readonly string[] }[] = []
      for (const { hours, rotate, restart, torn } of steps) {
        now.advance(hours * HOUR_MS)
        if (rotate) await rotateRoot(place, now.nowMs(), false)
        if (torn) await rm(join(place, 'ca.pem')) // as if a process stopped before it was written
        if (restart) fleet = [await loadAuthority(place, now, terms), ...fleet.slice(1)]
        for (const replica of fleet) await replica.refresh()
        fetched.push({ atMs: now.nowMs(), roots: inside(await readFile(join(place, 'ca.pem'), 'utf8')) })
        const recent = fetched.filter(({ atMs }) => now.nowMs() - atMs < patienceMs)
        const tops = fleet.map((replica) => topOf(replica, 'api.github.com'))
        expect(recent.filter(({ roots }) => !tops.every((top) => roots.includes(top)))).toEqual([])
        expect(fleet.map(({ trouble }) => trouble)).toEqual([undefined, undefined])
      }
    }),
    { numRuns: 5 },
  )
}, 30_000)

test('replicas that start at once, each with a service more, end with roots for all', async () => {
  const sets = [['a.test'], ['a.test', 'b.test'], ['a.test', 'c.test']]
  const fleet = await Promise.all(sets.map((hosts) => load(hosts)))
  for (const replica of fleet) await replica.refresh()
  const published = await onDisk()
  for (const [i, replica] of fleet.entries())
    for (const host of sets[i] ?? []) expect(published).toContain(topOf(replica, host))
})

test('what a root is told of fits what it is', async () => {
  await load([...GITHUB, '2001:db8::1'])
  const [root] = await viewRoots(dir, clock.nowMs())
  const certificate = new X509Certificate(root?.pem ?? '')
  expect(root).toMatchObject({
    serial: certificate.serialNumber,
    fingerprint: certificate.fingerprint256,
    signsFrom: undefined,
  })
  expect(root?.names).toEqual(['2001:db8::1/128', 'api.github.com'])
  expect(root?.pin).toMatch(/^[A-Za-z0-9+/]{43}=$/)
  expect(root?.trustedUntil.getTime()).toBe(clock.nowMs() + 90 * DAY_MS)
})
