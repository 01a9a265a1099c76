/** "Did you mean": the known name that a mistyped one is closest to. Pure. */
import { GatewayError } from './problem.ts'

/**
 * @returns the closest of `known` by Levenshtein distance, if it is within a third of the word, or two letters; else the only one that
 *   begins with the word's five letters or more; else undefined.
 */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const bound = Math.max(2, Math.floor(word.length / 3))
  const [close] = known
    .map((name) => ({ name, distance: editDistance(word, name) }))
    .filter(({ distance }) => distance <= bound)
    .sort((a, b) => a.distance - b.distance)
  if (close !== undefined) return close.name
  const longer = word.length < 5 ? [] : known.filter((name) => name.startsWith(word))
  return longer.length === 1 ? longer[0] : undefined
}

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let row = 1; row <= a.length; row++) {
    const current = [row]
    for (let column = 1; column <= b.length; column++) {
      const substituted = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1)
      current.push(Math.min(substituted, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1))
    }
    previous = current
  }
  return previous[b.length] ?? 0
}

/** @param what the name is of: `service`, `credential`, … @throws {GatewayError} `instruction_invalid` that says which there are. */
export function requireKnown(what: string, name: string | undefined, known: readonly string[]): void {
  if (name === undefined || known.includes(name)) return
  const meant = nearest(name, known)
  throw new GatewayError(
    'instruction_invalid',
    `The settings have no ${what} "${name}".${meant === undefined ? '' : ` Did you mean ${meant}?`} They have: ${known.join(', ') || 'none'}.`,
  )
}
