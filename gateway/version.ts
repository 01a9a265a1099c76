/** The version in package.json, for records and `keyless --version`. */
import packageJson from '../package.json' with { type: 'json' }

export const VERSION: string = packageJson.version
