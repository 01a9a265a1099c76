/** Reading claims with exactly the members that they may have. Says which claim is wrong, never its value. Pure. */

/** What cannot be true of a token that was written for this version. */
export class ClaimError extends Error {}

export type Members = Readonly<Record<string, unknown>>

export function require(holds: boolean, claim: string): void {
  if (!holds) throw new ClaimError(`claim ${claim} is not as this version writes it`)
}

/** An object with every required member, any optional one, and no other. @throws {ClaimError} */
export function exact(
  value: unknown,
  claim: string,
  required: readonly string[],
  optional: readonly string[] = [],
): Members {
  require(typeof value === 'object' && value !== null && !Array.isArray(value), claim)
  const members = value as Record<string, unknown>
  require(required.every((name) => Object.hasOwn(members, name)), claim)
  require(Object.keys(members).every((name) => required.includes(name) || optional.includes(name)), claim)
  return members
}

export function text(value: unknown, claim: string): string {
  require(typeof value === 'string' && value.length > 0, claim)
  return value as string
}

/** Epoch seconds. */
export function seconds(value: unknown, claim: string): number {
  require(Number.isSafeInteger(value) && (value as number) > 0, claim)
  return value as number
}
