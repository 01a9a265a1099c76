/**
 * The part of the composition root for what leaked: whoever finds one of our credentials says so, and it ends at once, whatever is left of
 * its time; canaries that turn up in calls or reports are told at once. Nothing is believed of a reporter but that it holds what it shows.
 */
import { hash } from 'node:crypto'
import { createPace } from '../control/pace.ts'
import type { LeakDoor } from '../control/signal/leak-routes.ts'
import { createGithubKeys } from '../identity/github-scanning.ts'
import { createCanaries } from '../protocol/canary.ts'
import type { Clock } from '../protocol/clock.ts'
import { readTokenDigest } from '../provider/oauth/token-digest.ts'
import type { ReadSecret } from '../provider/reference.ts'
import type { RequestRooms } from '../request-rooms.ts'
import type { Settings } from '../settings.ts'
import { type Baits, CANARY, inHead, seeking, type UsedCanary } from '../upstream/bait.ts'
import type { Fetch } from '../upstream/fetch.ts'
import { createLeakDesk, type DeskParts, endOf } from './leaks-desk.ts'
import { noted } from './leaks-note.ts'

export interface LeakParts extends DeskParts {
  readonly clock: Clock
  readonly readSecret: ReadSecret
  fetchFor(addresses: readonly string[]): Fetch
}

export interface HouseLeaks {
  readonly door: LeakDoor['leaks']
  /** A canary is in a call. Never throws. */
  used(used: UsedCanary): void
  /** Refusals, each looked at for canaries: what was refused before it was looked at is looked at now. */
  around(refusals: RequestRooms['refusals']): RequestRooms['refusals']
}

/** @param used of canaries. @returns undefined: there are none. */
export function baitsOf({ leaks }: Settings, seen: (used: UsedCanary) => void): Baits | undefined {
  const canaries = createCanaries(leaks.canaries)
  return canaries && { find: (text) => canaries.find(text), seen }
}

/** @throws {Error} naming the reporter whose token cannot be read. */
export async function openHouseLeaks(settings: Settings, parts: LeakParts): Promise<HouseLeaks> {
  const { github, reporters } = settings.leaks
  const pace = createPace({ ...ALARMS, clock: parts.clock })
  const used = (one: UsedCanary) => {
    try {
      pace.admit(`${one.canary} ${one.grant?.id ?? one.inbound.client.address}`)
      void alarm(one, settings, parts).catch(() => undefined) // the log says so; the call is refused either way
    } catch {} // it was told often enough, and what ends has ended
  }
  const baits = baitsOf(settings, used)
  const fetch = github && parts.fetchFor(github.addresses)
  return {
    door: {
      reporters: await digestsOf(reporters, parts.readSecret),
      isFromGithub: github && fetch && createGithubKeys({ ...github, fetch, clock: parts.clock }),
      take: createLeakDesk(settings, parts),
      digest: (token) => hash('sha256', token),
    },
    used,
    around(refusals) {
      if (baits === undefined) return refusals
      return {
        async write(inbound, refusal, endpoint, grant) {
          const isSeen = refusal.sightings?.some(({ rule }) => rule === CANARY)
          if (!isSeen) inHead(inbound, seeking(baits, inbound, grant))
          await refusals.write(inbound, refusal, endpoint, grant)
        },
      }
    },
  }
}

async function digestsOf(
  reporters: Settings['leaks']['reporters'],
  readSecret: ReadSecret,
): Promise<ReadonlyMap<string, Buffer>> {
  const digests = Object.entries(reporters).map(async ([name, { token }]) => {
    const digest = await readTokenDigest(token, readSecret).catch((cause: Error) => {
      throw new Error(`leaks.reporters.${name}: ${cause.message}`, { cause })
    })
    return [name, digest] as const
  })
  return new Map(await Promise.all(digests))
}

/** Alarms of one canary and one caller in a minute; who floods the gateway with bait is told of all the same. */
const ALARMS = { n: 10, perMs: 60_000 } as const

/** In the log, from which messages to people are made, before anything ends. */
async function alarm(
  { canary, where, inbound, grant }: UsedCanary,
  { tenant, leaks: { canaryEnds } }: Settings,
  { audit, revocations }: LeakParts,
): Promise<void> {
  const action = grant === undefined ? 'nothing' : canaryEnds
  const by = grant && { grant: grant.id, agent: grant.agent.id }
  const facts = { canary, where, host: inbound.host, address: inbound.client.address, ...by, action }
  await noted('leak.canary_used', { facts, grant, tenant }, audit)
  if (grant === undefined || action === 'nothing') return
  const reason = `A canary (${canary}) was in a call.`
  await revocations.order({ target: endOf(grant, action), reason, by: { automatic: 'leak' } })
}
