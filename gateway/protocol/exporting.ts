/** What settings and commands call an export by. Nothing here knows how one is made, so that a command can list it without loading that. */

export const FORMATS = ['jsonl', 'ocsf', 'otlp', 'cef'] as const
export type FormatName = (typeof FORMATS)[number]

/** Parts of an entry that can be kept from what is exported. */
export const MASKS = ['human', 'address', 'user_agent', 'path', 'purpose', 'policies'] as const
export type Mask = (typeof MASKS)[number]
