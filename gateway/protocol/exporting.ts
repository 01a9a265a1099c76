/** What settings and commands call an export by. Nothing here knows how one is made, so that a command can list it without loading that. */

export const FORMATS = ['jsonl', 'ocsf', 'otlp', 'cef'] as const
export type FormatName = (typeof FORMATS)[number]

/** Parts of an entry that can be kept from what is exported. */
export const MASKS = ['human', 'address', 'user_agent', 'path', 'purpose', 'policies'] as const
export type Mask = (typeof MASKS)[number]

/** How a message to people or programs looks: Standard Webhooks, Slack's incoming webhooks, security event tokens (RFC 8417). */
export type LetterFormat = 'standard' | 'slack' | 'set'

/** A message that waits, or was given up. */
export interface LetterView {
  /** The same in every attempt; `webhook-id` or `jti`. */
  readonly id: string
  /** Kind of the entry it tells of. */
  readonly kind: string
  /** Number of the entry. */
  readonly seq: number
  /** RFC 3339, of the entry. */
  readonly at: string
  readonly attempts: number
  /** What the last attempt met; absent before the first. */
  readonly reason?: string
}
