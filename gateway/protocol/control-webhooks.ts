/** JSON of the control door about webhooks and streams of signals, snake_case as on the wire. */
import type { LetterView } from './exporting.ts'

/** One element of `GET /webhooks` → `{webhooks: […]}`, on the unix socket only. */
export interface WebhookView {
  /** `webhook.security`, `stream.siem`. */
  readonly name: string
  readonly format: string
  /** Host; never a path, which may be a secret. */
  readonly to: string
  readonly waiting: number
  /** Why nothing is taken at the moment. */
  readonly failure?: string
  /** Given up, the oldest first; at most 100. */
  readonly dead: readonly LetterView[]
  readonly dead_count: number
}

/** `POST /webhooks/<name>/test` */
export interface TestedView {
  readonly taken: boolean
  readonly reason?: string
}
