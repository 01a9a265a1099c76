/**
 * A gateway between an upstream of which a test writes every byte, and two agents: one that does its worst, and one that goes on
 * working. What the attack may cost everybody else is the same for all attacks, and stated here.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { expect } from 'vitest'
import { type Bystander, openBystander } from './bystander.fixture.ts'
import type { Wanted } from './services.fixture.ts'
import { openWatched, type Watched } from './watched.fixture.ts'

/** No call of anybody else may take longer, on a machine that is busy with the attack itself. */
const PATIENCE_MS = 10_000
const MIB = 1024 * 1024

export interface Besieged {
  readonly gateway: Watched
  /** Of the agent that attacks. */
  readonly handle: string
  /**
   * What happens to everybody else meanwhile: fails unless the process lives, every call of the other agent succeeded in time,
   * and resident memory grew by no more than `mib`, at its highest. Default 128: garbage that was not collected yet counts.
   */
  during(name: string, attack: () => Promise<void>, mib?: number): Promise<void>
  stop(): Promise<void>
}

export async function openBesieged(place: { port: number; caPem: string }, wanted: Wanted): Promise<Besieged> {
  const bystander = await openBystander()
  const quiet = {
    ...{ name: 'quiet', ports: [bystander.port], unsafe_cleartext: true, slots: [] },
    operations: { all: { match: ['GET /'], access: 'read' as const } },
  }
  const gateway = await openWatched(place, {
    ...wanted,
    services: [...wanted.services, quiet],
    settings: {
      agents: ['attacker', 'bystander'].map((id) => ({ id, owner: 'ana', purpose: 'test' })),
      audit: { durability: 'relaxed' },
      ...wanted.settings,
    },
  })
  const scope = wanted.services.map(({ name }) => `${name}:*`).join(' ')
  const { handle } = await gateway.control.openTask({ scope, purpose: 'attack', agent: 'attacker' })
  const other = await gateway.control.openTask({ scope: 'quiet:*', purpose: 'work', agent: 'bystander' })
  bystander.begin({ port: gateway.port, handle: other.handle, host: 'quiet.keyless.test' })
  await pause(300)
  await bystander.figures()
  return {
    gateway,
    handle,
    during: (name, attack, mib = 128) => watch({ gateway, bystander, name, mib }, attack),
    async stop() {
      bystander.stop()
      await gateway.stop()
    },
  }
}

interface Watching {
  readonly gateway: Watched
  readonly bystander: Bystander
  readonly name: string
  readonly mib: number
}

async function watch({ gateway, bystander, name, mib }: Watching, attack: () => Promise<void>): Promise<void> {
  const before = await bystander.figures()
  const residentBefore = gateway.residentBytes()
  gateway.forgetPeak()
  await attack()
  const { failures, ...times } = await bystander.figures()
  const grown = Math.round((gateway.peakBytes() - residentBefore) / MIB)
  if (process.env.KEYLESS_FIGURES !== undefined)
    console.log(
      `${name}: p50 ${before.p50} → ${times.p50} ms, p99 ${before.p99} → ${times.p99} ms, max ${times.max}, ${times.calls} calls, +${grown} MiB`,
    )
  expect(failures).toEqual([])
  expect(times.max).toBeLessThan(PATIENCE_MS)
  expect(grown).toBeLessThan(mib)
  process.kill(gateway.pid, 0) // it lives
}
