/** Checks of settings that say what to write instead, not only no. */
import { z } from 'zod'

/** What a custom check says besides "no"; the explanation prints both (explain.ts). */
export interface Advice {
  readonly allowed: string
  readonly fix: string
}

/** A transformation that fails with advice instead of a bare message. */
export function read<In, Out>(convert: (value: In) => Out | null, advice: Advice) {
  return (value: In, context: z.RefinementCtx): Out => {
    const result = convert(value)
    if (result !== null) return result
    context.addIssue({ code: 'custom', message: advice.allowed, params: advice })
    return z.NEVER
  }
}
