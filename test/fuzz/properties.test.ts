/** A short run of what `npm run fuzz` does for as long as it is told. */
import { expect, it } from 'vitest'
import { PROPERTIES } from './properties.ts'

it.each(PROPERTIES)('$name', (property) => {
  expect(() => property.run({ numRuns: 1_500 })).not.toThrow()
})
