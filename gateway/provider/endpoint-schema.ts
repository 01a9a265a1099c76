/** Settings that say where an issuer is and where its name may lead: the same rules for every provider. */
import ipaddr from 'ipaddr.js'
import { z } from 'zod'

/** `https`, or `http` on a literal address that `addresses` names (`isReachedSafely`). */
export const endpointUrl = z.string().superRefine((text, context) => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  // The text is not repeated: a URL with a password in it must not reach a message.
  if (url === undefined || (url.protocol !== 'https:' && url.protocol !== 'http:'))
    context.addIssue('is not an https:// URL')
  else if (url.username !== '' || url.password !== '')
    context.addIssue(
      'must not hold a user or password: give the secret by reference, such as client_secret: { file: path }',
    )
  else if (url.hash !== '') context.addIssue('must not have a fragment (RFC 6749 §3.2)')
})

/** One entry of `addresses`. */
export const addressRange = z.string().refine((text) => ipaddr.isValidCIDR(text), {
  error: 'is not an address range such as 10.20.0.0/16 or 127.0.0.1/32',
})

/** Only a literal address is known to stay where settings put it: a name could resolve to a public address later. */
export function isReachedSafely(text: string, ranges: readonly string[]): boolean {
  const url = new URL(text)
  if (url.protocol !== 'http:') return url.protocol === 'https:'
  const literal = url.hostname.replace(/^\[|\]$/g, '')
  if (!ipaddr.isValid(literal)) return false
  const address = ipaddr.process(literal)
  return ranges.some((range) => {
    const [network, bits] = ipaddr.parseCIDR(range)
    return network.kind() === address.kind() && address.match(network, bits)
  })
}

/** Issues for every endpoint of `config` among `names` that a secret would reach in the clear. */
export function refuseCleartext<T extends { readonly addresses: readonly string[] }>(
  names: readonly (keyof T & string)[],
) {
  return (config: T, context: z.RefinementCtx): void => {
    for (const name of names) {
      const url = config[name]
      if (typeof url !== 'string' || isReachedSafely(url, config.addresses)) continue
      context.addIssue({
        code: 'custom',
        path: [name],
        message:
          'is not https: a client secret or token would travel in the clear. Use https, or a literal address (http://127.0.0.1:…) that addresses names',
      })
    }
  }
}
