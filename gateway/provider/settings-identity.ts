/** `Provider.identity` of a credential whose settings say all that changes what it can do. */
import { referenceIdentity, secretReference } from './reference.ts'

/**
 * The settings as one canonical text: parsed settings have their members in the order of their schema, and hold no secret, only
 * where to read it. `fallback` is left out: who stands in has an identity of its own.
 */
export function settingsIdentity(config: object): string {
  return JSON.stringify({ ...config, fallback: undefined }, (_name, value) => {
    const { data } = secretReference.safeParse(value)
    return data === undefined ? value : referenceIdentity(data)
  })
}
