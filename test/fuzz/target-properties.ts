/** Where a request goes: paths, authorities, absolute targets, Host. WHATWG's URL parser is the second reader. */
import fc from 'fast-check'
import { cutAbsolute, placeOf, requirePlace } from '../../gateway/ingress/place.ts'
import { parseOrigin } from '../../gateway/protocol/authority.ts'
import { canonicalPath, formatAuthority, parseAuthority } from '../../gateway/protocol/target.ts'
import { nearly } from './mutations.ts'
import { answerOf, must, type Property, property } from './property.ts'
import { AMBIGUOUS, AUTHORITIES, PLAIN } from './wordings.fixture.ts'

const HOSTS = [
  'api.github.test',
  'api.github.test:8443',
  '[::1]:8080',
  '[2001:db8::7]',
  '127.0.0.1',
  '10.1.2.3:80',
  'a-b.c1.test.',
]
const spelled = AUTHORITIES.map((text) => text.replaceAll('{host}', 'api.test').replaceAll('{port}', '8443'))

const paths = fc.oneof(
  nearly([...PLAIN, ...AMBIGUOUS, '/repos/acme/site/issues?state=open&page=2']),
  fc.string({ unit: 'binary' }),
)
const authorities = fc.oneof(nearly([...HOSTS, ...spelled], 3), fc.string({ unit: 'binary' }))
const targets = fc.oneof(
  nearly([
    'http://api.test/a?b',
    'https://api.test:8443/a',
    'ws://api.test',
    'http://[::1]:80/',
    'HTTP://api.test?x',
    '/a',
    '*',
  ]),
  fc.tuple(authorities, paths).map(([authority, path]) => `http://${authority}${path}`),
)

/** A canonical path written so that reading it gives it again: an encoded slash stays one. */
const written = (path: string) => path.split('%2F').map(encodeURI).join('%2F').replaceAll(/[?#]/g, encodeURIComponent)

export const TARGET_PROPERTIES: readonly Property[] = [
  property('a path means to others what was decided on', paths, (raw) => {
    const path = answerOf(() => canonicalPath(raw))
    if (path === undefined) return
    const mark = raw.indexOf('?')
    const bare = mark === -1 ? raw : raw.slice(0, mark)
    const url = URL.parse(`http://host${raw}`)
    must(url !== null, 'it is no path of a URL')
    const [ours, theirs] = [path.replaceAll('%2F', '/'), decodeURIComponent(withoutSlash(url?.pathname ?? ''))]
    must(ours === theirs, `${ours} is ${theirs} elsewhere`)
    must(!/(?:^|\/)\.\.?(?:\/|$)/.test(path.replaceAll('%2F', '/')), 'a dot segment')
    must(!/[\p{Cc}\\;]/u.test(path), 'a separator or control character')
    must(!/[^\x21-\x7e]/.test(bare), 'a byte that has to be encoded')
  }),
  property('a canonical path is the canonical form of itself', paths, (raw) => {
    const path = answerOf(() => canonicalPath(raw))
    if (path === undefined) return
    const again = answerOf(() => canonicalPath(written(path)))
    must(again === path, `${path} became ${again}`)
  }),
  property('the query counts for nothing in the path', paths, (raw) => {
    const path = answerOf(() => canonicalPath(raw))
    const without = answerOf(() => canonicalPath(raw.split('?', 1)[0] ?? ''))
    must(path === without, `${path} and ${without}`)
  }),
  property('an authority names one place, and others go there too', authorities, (text) => {
    const place = answerOf(() => parseAuthority(text, 80))
    if (place === undefined) return
    const url = URL.parse(`http://${text}/`)
    must(url !== null && url.username === '' && url.password === '', 'others read no authority')
    const host = (url?.hostname ?? '').replace(/^\[|\]$/g, '').replace(/\.$/, '')
    must(host === place.host, `${place.host} is ${host} elsewhere`)
    must(Number(url?.port || 80) === place.port, `port ${place.port} is ${url?.port} elsewhere`)
    must(/^[a-z0-9.:-]+$/.test(place.host) && place.port >= 1 && place.port <= 65_535, 'a place of plain characters')
    const again = parseAuthority(formatAuthority(place, 80), 80)
    must(again.host === place.host && again.port === place.port, 'written down, it is another')
  }),
  property('an absolute target is cut without losing or adding a byte', targets, (url) => {
    const cut = answerOf(() => cutAbsolute(url))
    if (cut === undefined) return
    must(cut.rawPath.startsWith('/'), 'a path')
    must(!/[/?]/.test(cut.authority), 'an authority')
    const rest = url.slice(url.indexOf('://') + 3)
    must(rest === cut.authority + cut.rawPath || rest === cut.authority + cut.rawPath.slice(1), 'other bytes')
  }),
  property('a Host agrees only with the place that it names', fc.tuple(authorities, authorities), ([host, text]) => {
    const place = answerOf(() => placeOf(text, 'https'))
    if (place === undefined) return
    const agrees = answerOf(() => requirePlace(host, { ...place, scheme: 'https' }) ?? true) === true
    const named = answerOf(() => parseAuthority(host, 443))
    must(agrees === (named?.host === place.host && named?.port === place.port), `${host} and ${text}`)
  }),
  property('an origin is an origin, or none', fc.oneof(targets, authorities), (text) => {
    const origin = parseOrigin(text)
    if (origin !== undefined) must(parseOrigin(origin) === origin, `${origin}`)
  }),
]

/** A trailing slash makes no difference; an empty segment does. */
function withoutSlash(path: string): string {
  return path.length > 1 && path.endsWith('/') && !path.endsWith('//') ? path.slice(0, -1) : path
}
