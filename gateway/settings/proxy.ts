/** The part `upstream.proxy` of settings as people write it. `settings/way-out.ts` completes it. */
import { isIP } from 'node:net'
import { z } from 'zod'
import { parseCidr } from '../protocol/cidr.ts'
import { read } from './advice.ts'

const path = () => z.string().min(1)

export const PLACE = 'http://host:port or https://host:port'

const entry = z
  .string()
  .refine((text) => (text.includes('/') ? parseCidr(text) !== undefined : isIP(text) !== 0 || NAME.test(text)), {
    params: {
      allowed: 'a host name, `.suffix`, an address, or a range of addresses (CIDR)',
      fix: 'write one of them, like ".corp.example" or "10.0.0.0/8"',
    },
  })

const NAME = /^\.?[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/i

export const upstreamProxySchema = z
  .strictObject({
    url: z
      .union([
        z.string().transform(
          read((text: string) => (proxyUrl(text)?.username === '' ? text : null), {
            allowed: `${PLACE}, without user and password`,
            fix: 'write "http://proxy.corp.example:3128"; where user and password are needed, url: { env: CORPORATE_PROXY }',
          }),
        ),
        z.strictObject({ env: z.string().min(1) }),
        z.strictObject({ file: path() }),
      ])
      .describe(
        'http:// or https:// address of the proxy. With user and password (Basic), by reference: { env: CORPORATE_PROXY } or { file: /run/secrets/proxy-url }.',
      ),
    no_proxy: z
      .array(entry)
      .optional()
      .describe(
        'Hosts that are reached without it: names, `.suffix` for all below it, addresses, CIDR ranges for hosts written as addresses. This machine always is. Default none.',
      ),
    ca: z
      .array(path())
      .optional()
      .describe('PEM files of additional root certificates that an https:// proxy may present.'),
  })
  .describe(
    'A proxy that connections to upstreams and issuers have to go through, by CONNECT. Default: none; HTTP_PROXY and the like are not read.',
  )

export type WrittenUpstreamProxy = z.output<typeof upstreamProxySchema>

/** A URL that names a proxy and nothing more. */
export function proxyUrl(text: string): URL | null {
  const url = URL.parse(text)
  if (url === null || !/^https?:$/.test(url.protocol) || url.hostname === '') return null
  return url.pathname === '/' && url.search === '' && url.hash === '' ? url : null
}
