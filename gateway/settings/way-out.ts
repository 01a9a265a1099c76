/** The proxy of the network that we are in, completed: where it is, and the credentials that its settings refer to. */
import { DEFAULT_PORTS } from '../protocol/target.ts'
import type { UpstreamProxy } from '../upstream/via-proxy.ts'
import { absolutePath, readText, type Surroundings } from './around.ts'
import { rootsOf } from './parts.ts'
import { PLACE, proxyUrl, type WrittenUpstreamProxy } from './proxy.ts'

/** The credentials are not enumerable, so that printing settings does not show them. */
export function upstreamProxyOf(
  written: WrittenUpstreamProxy | undefined,
  around: Surroundings,
): UpstreamProxy | undefined {
  if (written === undefined) return undefined
  const { text, where } = textOf(written.url, around)
  const url = text === undefined ? null : proxyUrl(text)
  if (url === null) {
    around.report(['upstream', 'proxy', 'url'], {
      got: text === undefined ? `nothing in ${where}` : `no proxy URL in ${where}`,
      allowed: `${PLACE}, with user:password@ in front of the host if the proxy asks for them`,
      fix: `put the URL into ${where}`,
    })
    return undefined
  }
  const scheme = url.protocol === 'https:' ? 'https' : 'http'
  const proxy = {
    scheme,
    host: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? DEFAULT_PORTS[scheme] : Number(url.port),
    noProxy: (written.no_proxy ?? []).map((one) => one.toLowerCase()),
    ca: rootsOf(written.ca ?? [], ['upstream', 'proxy', 'ca'], around),
    authorization: undefined,
  } as const
  return Object.defineProperty(proxy, 'authorization', { value: basicOf(url), enumerable: false })
}

function textOf(place: WrittenUpstreamProxy['url'], around: Surroundings): { text: string | undefined; where: string } {
  if (typeof place === 'string') return { text: place, where: 'this line' }
  if ('env' in place) return { text: process.env[place.env], where: `the environment variable ${place.env}` }
  const file = absolutePath(place.file, around)
  return { text: readText(file)?.trim(), where: `the file ${file}` }
}

/** RFC 7617. */
function basicOf({ username, password }: URL): string | undefined {
  if (username === '' && password === '') return undefined
  const pair = [username, password].map(decodeURIComponent).join(':')
  return `Basic ${Buffer.from(pair).toString('base64')}`
}
