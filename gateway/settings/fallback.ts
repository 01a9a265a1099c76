/** Credentials that stand in for others while an issuer is away: each must be there, and none may stand in for itself. */
import { nearest } from '../protocol/nearest.ts'
import type { Surroundings } from './around.ts'

type Written = Readonly<Record<string, { readonly fallback?: string | undefined }>>

/** @returns name → name of who stands in for it. */
export function fallbacksOf(credentials: Written): ReadonlyMap<string, string> {
  return new Map(Object.entries(credentials).flatMap(([name, { fallback }]) => (fallback ? [[name, fallback]] : [])))
}

/** Reports every name that leads nowhere, and every circle once. */
export function checkFallbacks(credentials: Written, { report }: Surroundings): void {
  const fallbacks = fallbacksOf(credentials)
  const names = Object.keys(credentials)
  for (const [name, fallback] of fallbacks) {
    const path = ['credentials', name, 'fallback']
    if (!names.includes(fallback)) {
      const meant = nearest(fallback, names)
      report(path, {
        got: fallback,
        allowed: 'the name of another entry of credentials',
        fix: meant === undefined ? 'add that entry, or remove this line' : `write ${meant}, if that is meant`,
      })
    } else if (firstOfCircle(name, fallbacks) === name) {
      report(path, {
        got: `${circle(name, fallbacks).join(' → ')}, a circle`,
        allowed: 'a chain that ends',
        fix: 'remove the fallback of one of them',
      })
    }
  }
}

/** The circle that begins here, back to where it began. */
function circle(name: string, fallbacks: ReadonlyMap<string, string>): string[] {
  const passed = [name]
  for (let next = fallbacks.get(name); next !== undefined; next = fallbacks.get(next)) {
    if (passed.includes(next)) return [...passed, next]
    passed.push(next)
  }
  return passed
}

/** Of a name that is in a circle, the first of the circle by the alphabet: each circle is told once. */
function firstOfCircle(name: string, fallbacks: ReadonlyMap<string, string>): string | undefined {
  const passed = circle(name, fallbacks)
  return passed.length > 1 && passed.at(-1) === name ? passed.toSorted()[0] : undefined
}
