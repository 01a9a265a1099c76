/** What a reload of settings and policies refuses, and what of them it leaves to a restart. */
import { isDeepStrictEqual } from 'node:util'
import { asGatewayError, GatewayError } from '../protocol/problem.ts'
import type { Settings } from '../settings.ts'

export function rejection(cause: unknown): GatewayError {
  if (cause instanceof GatewayError) return cause
  if (cause instanceof Error && ABOUT_FILES.has(cause.name))
    return new GatewayError('policy_rejected', `Nothing has changed. ${cause.message}`, { cause })
  return asGatewayError(cause)
}

/** These say what is wrong with what was offered; anything else is a defect. */
const ABOUT_FILES: ReadonlySet<string> = new Set(['PolicyFaults', 'SettingsError', 'BundleRefused'])

/** What is taken up while the gateway runs, follows from something else that has changed, or is told apart below. */
const LIVE_NAMES = new Set(['agents', 'policies', 'policy', 'written', 'file', 'secretEnv', 'warnings', 'signals'])

/** Names as they stand in the settings file. */
export function staleNames(next: Settings, current: Settings): string[] {
  const names = (Object.keys(next) as (keyof Settings)[])
    .filter((name) => !LIVE_NAMES.has(name) && !isDeepStrictEqual(next[name], current[name]))
    .map((name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`))
  const parts: Record<string, (settings: Settings) => unknown> = {
    'policy.source': ({ policy }) => policy.source?.from,
    'policy.engines': ({ policy }) => policy.engines,
    webhooks: ({ signals }) => signals.webhooks,
    signals: ({ signals }) => [signals.streams, signals.sources],
  }
  const moved = Object.entries(parts).filter(([, part]) => !isDeepStrictEqual(part(next), part(current)))
  return [...names, ...moved.map(([name]) => name)].toSorted()
}
