/** The formats of messages, joined by one table. Each makes one message of one entry, or none where the format has nothing to say. */
import { hash } from 'node:crypto'
import type { LetterFormat } from '../../protocol/exporting.ts'
import type { Item } from './item.ts'
import { setText } from './letter-set.ts'
import { slackText } from './letter-slack.ts'
import { standardText } from './letter-standard.ts'
import type { LetterTerms } from './letter-terms.ts'

export interface Letter {
  /** The same in every repetition and in every replica that reads the same log. No dot: it is signed between dots. */
  readonly id: string
  readonly kind: string
  readonly seq: number
  /** RFC 3339, of the entry. */
  readonly at: string
  /** Body as sent; of a security event token its claims, which are signed when it leaves. */
  readonly text: string
}

const texts: Readonly<Record<LetterFormat, (item: Item, terms: LetterTerms, id: string) => string | undefined>> = {
  standard: standardText,
  slack: slackText,
  set: setText,
}

export function letterOf(format: LetterFormat, item: Item, terms: LetterTerms): Letter | undefined {
  const id = letterId(item.uid)
  const text = texts[format](item, terms, id)
  const { kind, seq, ts: at } = item.entry
  return text === undefined ? undefined : { id, kind, seq, at, text }
}

function letterId(uid: string): string {
  return `msg_${hash('sha256', uid, 'base64url').slice(0, 27)}`
}
