/** Everything that is fuzzed: briefly with every test run, longer by `npm run fuzz -- --seconds N`. */
import { FRAME_PROPERTIES } from './frame-properties.ts'
import { HEADER_PROPERTIES } from './header-properties.ts'
import type { Property } from './property.ts'
import { TARGET_PROPERTIES } from './target-properties.ts'

export const PROPERTIES: readonly Property[] = [...TARGET_PROPERTIES, ...HEADER_PROPERTIES, ...FRAME_PROPERTIES]
