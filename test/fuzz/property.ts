/** One thing that must hold for all inputs, and how it is tried. */
import fc from 'fast-check'
import { GatewayError } from '../../gateway/protocol/problem.ts'

export interface Property {
  readonly name: string
  /** @throws when it does not hold. */
  run(parameters: fc.Parameters<unknown>): void
}

export function property<T>(name: string, inputs: fc.Arbitrary<T>, holds: (input: T) => void): Property {
  return {
    name,
    run: (parameters) =>
      fc.assert(
        fc.property(inputs, (input) => holds(input)),
        parameters as fc.Parameters<[T]>,
      ),
  }
}

/** What a parser makes of its input; undefined where it refuses, which it may only do with words for the agent. */
export function answerOf<T>(parse: () => T): T | undefined {
  try {
    return parse()
  } catch (cause) {
    if (cause instanceof GatewayError) return undefined
    throw cause
  }
}

export function must(holds: boolean, what: string): void {
  if (!holds) throw new Error(what)
}
