/** What a format makes of several entries. */

/** One request of HTTP, or lines of a file: ends in a line feed. */
export interface Body {
  /** Place below the receiver's URL, where a format has several. */
  readonly path?: 'v1/logs' | 'v1/traces'
  readonly text: string
}
