/** JSON documents in the sealed store, for rooms that have state of their own to keep and reveal nothing: one row each, changed by version. */
import { Secret } from '../../protocol/secret.ts'
import type { Opened, Sealed } from './sealed.ts'

export interface Document {
  readonly content: unknown
  readonly version: number
}

/** Under one prefix. What is said of versions and claims in `sealed.ts` holds here. */
export interface Documents {
  read(id: string): Promise<Document | undefined>
  claim(id: string, forMs: number): Promise<Document | 'taken' | undefined>
  write(id: string, content: object | null, expected: number): Promise<number | undefined>
  ids(): Promise<readonly string[]>
}

/** @param prefix ends with a slash: names that people give have none. */
export function documentsIn(sealed: Sealed, prefix: `${string}/`): Documents {
  return {
    read: async (id) => opened(await sealed.read(prefix + id)),
    async claim(id, forMs) {
      const row = await sealed.claim(prefix + id, forMs)
      return row === 'taken' ? row : opened(row)
    },
    write: (id, content, expected) =>
      sealed.write(prefix + id, content && new Secret(JSON.stringify(content)), expected),
    ids: async () => (await sealed.names(prefix)).map((name) => name.slice(prefix.length)),
  }
}

function opened(row: Opened | undefined): Document | undefined {
  return row && { content: JSON.parse(row.secret.reveal()), version: row.version }
}
