import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, it, vi } from 'vitest'
import { keepFresh } from '../gateway/house/authority.ts'
import { authorityTerms, loadAuthority } from '../gateway/ingress/certificate.ts'
import { rotateRoot } from '../gateway/ingress/rotation.ts'
import { manualClock } from './rig/clock.ts'

afterEach(() => void vi.useRealTimers())

it('says in the log that the CA is another one, once, and again later when the log could not be written', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-ca-'))
  const clock = manualClock()
  const terms = authorityTerms({ names: 'services', days: 90 }, [{ hosts: ['api.github.com'] }])
  const authority = await loadAuthority(dir, clock, terms)
  let look: () => Promise<void> = async () => {}
  vi.spyOn(globalThis, 'setInterval').mockImplementation(((work: () => Promise<void>) => {
    look = work
    return { unref: () => 0 }
  }) as never)
  const told: unknown[] = []
  let isFailing = true
  const administer = async (kind: string, by: object, facts: object) => {
    if (isFailing) throw new Error('ENOSPC')
    told.push({ kind, by, ...facts })
    return {} as never
  }
  keepFresh(authority, { administer }, 'default')
  await look()
  expect(told).toEqual([])
  await rotateRoot(dir, clock.nowMs(), false)
  await look()
  expect(told).toEqual([])
  isFailing = false
  await look()
  await look()
  const one = expect.stringMatching(/^([0-9A-F]{2}:){31}[0-9A-F]{2}$/)
  const kept = [one, one]
  expect(told).toEqual([{ kind: 'admin.ca_rotated', by: { tenant: 'default' }, before: kept, after: [...kept, one] }])
  vi.restoreAllMocks()
  await rm(dir, { recursive: true, force: true })
})
