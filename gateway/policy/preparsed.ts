/**
 * What Cedar keeps parsed. It does so for the life of the thread and drops nothing (standards.md C1), but parses anew under an
 * id that is there. So an id that nobody holds any more is emptied and given to the next: a gateway that loads policies all
 * day keeps what it held at once, and no more. Equal contents are parsed once and shared.
 */
import { preparsePolicySet, preparseSchema, type Schema } from '@cedar-policy/cedar-wasm/nodejs'

/** A parsed set or schema. After the last of its holders has disposed of it, its id stands for something else: never use it then. */
export interface Parsed extends Disposable {
  readonly id: string
}

type Answer = ReturnType<typeof preparseSchema>

interface Kept {
  readonly id: string
  holders: number
}

class Shelf<T> {
  readonly #name: string
  readonly #parse: (id: string, content: T) => Answer
  readonly #empty: T
  /** content → what stands for it */
  readonly #kept = new Map<string, Kept>()
  readonly #free: string[] = []
  #ids = 0

  constructor(name: string, parse: (id: string, content: T) => Answer, empty: T) {
    this.#name = name
    this.#parse = parse
    this.#empty = empty
  }

  /** Ids that were ever given out. */
  get ids(): number {
    return this.#ids
  }

  hold(key: string, content: T): Parsed {
    const kept = this.#kept.get(key) ?? this.#add(key, content)
    kept.holders++
    let isHeld = true
    return {
      id: kept.id,
      [Symbol.dispose]: () => {
        if (!isHeld) return
        isHeld = false
        kept.holders--
        if (kept.holders === 0) this.#drop(key, kept)
      },
    }
  }

  #add(key: string, content: T): Kept {
    const id = this.#free.pop() ?? `${this.#name}/${this.#ids++}`
    const answer = this.#parse(id, content)
    if (answer.type === 'failure') {
      this.#free.push(id)
      const errors = answer.errors.map((error) => error.message).join('; ')
      throw new Error(`Cedar refuses what it has validated: ${errors}`)
    }
    const kept = { id, holders: 0 }
    this.#kept.set(key, kept)
    return kept
  }

  #drop(key: string, { id }: Kept): void {
    this.#kept.delete(key)
    this.#parse(id, this.#empty) // an empty set permits nothing
    this.#free.push(id)
  }
}

// Module state on purpose: it mirrors what Cedar keeps for this thread, which has no owner but the thread either.
const sets = new Shelf<Readonly<Record<string, string>>>(
  'set',
  (id, staticPolicies) => preparsePolicySet(id, { staticPolicies: { ...staticPolicies } }),
  {},
)
const schemas = new Shelf<Schema>('schema', (id, schema) => preparseSchema(id, schema), '')

/** @param policies id → text. */
export function parseSet(policies: Readonly<Record<string, string>>): Parsed {
  return sets.hold(JSON.stringify(policies), policies)
}

export function parseSchema(schema: Schema): Parsed {
  return schemas.hold(typeof schema === 'string' ? schema : JSON.stringify(schema), schema)
}

/** Ids that Cedar has been given in this thread. */
export function idsGiven(): { readonly sets: number; readonly schemas: number } {
  return { sets: sets.ids, schemas: schemas.ids }
}
