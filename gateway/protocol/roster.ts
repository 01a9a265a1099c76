/**
 * Who is there now, where members come and go with every call. A `Set` or a `Map` would do, but the runtime's grow and shrink by moving
 * into a new table to which the old one points: an old table that was once promoted keeps alive all that came after it, and everybody
 * who was ever in one of them, until the whole heap is collected. That is a third of what calls allocate.
 */

export interface Placed {
  /** Written only by the roster it is in; -1: in none. */
  place: number
}

/** In no order. Nobody is in two rosters at once. */
export class Roster<T extends Placed> {
  readonly #members: T[] = []

  get size(): number {
    return this.#members.length
  }

  has(member: T): boolean {
    return member.place >= 0 && this.#members[member.place] === member
  }

  add(member: T): void {
    if (!this.has(member)) member.place = this.#members.push(member) - 1
  }

  /** @returns whether it was there. The last one takes its place. */
  delete(member: T): boolean {
    if (!this.has(member)) return false
    const last = this.#members.pop() as T
    if (last !== member) {
      this.#members[member.place] = last
      last.place = member.place
    }
    member.place = -1
    return true
  }

  /** Those who are there at this moment. */
  all(): readonly T[] {
    return [...this.#members]
  }
}
