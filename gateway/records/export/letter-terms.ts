/** What the settings say of a message to somebody, besides the entry it tells of. */

/** What a format needs to know besides the entry. */
export interface LetterTerms {
  readonly publicUrl: string
  /** Receiver of security event tokens. */
  readonly audience: string
  /** Id of the stream of security event tokens. */
  readonly stream: string
}
