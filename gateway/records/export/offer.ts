/**
 * Offers a batch and finds out which entries the receiver will not have: a refused batch is halved until single entries are left.
 * Whether it is the entry or the receiver that is wrong, only another entry can tell: none is given up before one was taken.
 */
import type { Item } from './item.ts'
import { Refusal, type Sink, Unavailable } from './sink.ts'

export interface Refused {
  readonly item: Item
  readonly reason: string
}

/** Entries that are given up in a row before the receiver must have taken another. */
const MAX_IN_A_ROW = 16
/** Entries tried by themselves, from all over the batch, to see whether the receiver takes anything: others in each try. */
const PROBES = 8

/** @returns offers `items`, and says which were refused. @throws what the sink throws, or {Unavailable} when it refuses everything. */
export function createOffer(sink: Sink, random: () => number): (items: readonly Item[]) => Promise<Refused[]> {
  let credit = 0 // written only by `refusalOf` and `part`
  const refusalOf = async (items: readonly Item[]): Promise<string | undefined> => {
    try {
      await sink.deliver(items)
      credit = MAX_IN_A_ROW
      return undefined
    } catch (cause) {
      if (cause instanceof Refusal) return cause.message
      throw cause
    }
  }
  const someTaken = async (items: readonly Item[]): Promise<boolean> => {
    const step = Math.max(1, items.length / PROBES)
    for (let from = 0; from < items.length; from += step) {
      const at = Math.min(Math.floor(from + random() * step), items.length - 1)
      if ((await refusalOf(items.slice(at, at + 1))) === undefined) return true
    }
    return false
  }
  const part = async (items: readonly Item[], isTrusted: boolean): Promise<Refused[]> => {
    const reason = await refusalOf(items)
    if (reason === undefined) return []
    const [item] = items
    if (!item || items.length > 1) {
      const half = items.length / 2
      return [...(await part(items.slice(0, half), isTrusted)), ...(await part(items.slice(half), isTrusted))]
    }
    if (!isTrusted && credit === 0) throw new Unavailable(`it refuses everything: ${reason}`)
    credit = Math.max(0, credit - 1)
    return [{ item, reason }]
  }
  return async (items) => {
    const reason = await refusalOf(items)
    if (reason === undefined) return []
    if (credit > 0) return part(items, false)
    const isTrusted = items.length > 1 && (await someTaken(items))
    if (!isTrusted) throw new Unavailable(`it refuses everything: ${reason}`)
    return part(items, isTrusted)
  }
}
