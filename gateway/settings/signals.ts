/** The settings parts `webhooks` and `signals`, completed: absolute files, own audience, and what rows must agree on among themselves. */
import { absolutePath, type Surroundings } from './around.ts'
import {
  DEFAULT_KINDS,
  type StreamSettings,
  type WrittenSignals,
  type WrittenSource,
  type WrittenWebhook,
} from './signals-schema.ts'

export type WebhookSettings = Omit<WrittenWebhook, 'kinds'> & { readonly kinds: readonly string[] }
export type SourceSettings = Omit<WrittenSource, 'audience' | 'humans'> & {
  readonly audience: readonly string[]
  readonly humans: readonly string[]
}

export interface SignalSettings {
  readonly webhooks: Readonly<Record<string, WebhookSettings>>
  readonly streams: Readonly<Record<string, StreamSettings>>
  readonly sources: readonly SourceSettings[]
}

/** Names in `@notify` of policies that a webhook goes by. */
export function notifiedOf({ webhooks }: Pick<SignalSettings, 'webhooks'>): ReadonlySet<string> {
  return new Set(Object.values(webhooks).flatMap(({ notify }) => notify ?? []))
}

export function signalsOf(
  { webhooks = {}, signals = {} }: WrittenSignals,
  publicUrl: string,
  around: Surroundings,
): SignalSettings {
  const sources = (signals.receive ?? []).map((row) => ({
    ...row,
    jwks: 'file' in row.jwks ? { file: absolutePath(row.jwks.file, around) } : row.jwks,
    audience: row.audience ?? [publicUrl],
    humans: row.humans ?? [row.issuer],
  }))
  sources.forEach(({ issuer }, index) => {
    if (sources.findIndex((row) => row.issuer === issuer) === index) return
    around.report(['signals', 'receive', String(index), 'issuer'], {
      got: `${issuer} a second time`,
      allowed: 'every issuer once',
      fix: 'put the audiences of both into one row',
    })
  })
  const named = Object.entries(webhooks).map(([key, one]): [string, WebhookSettings] => [
    key,
    { ...one, kinds: one.kinds ?? (one.notify === undefined ? DEFAULT_KINDS : []) },
  ])
  return { webhooks: Object.fromEntries(named), streams: signals.send ?? {}, sources }
}
