/** What becomes of header fields: nothing of a connection, no slot, nothing that ends a line, over both versions of HTTP. */
import { Readable } from 'node:stream'
import fc from 'fast-check'
import { hasBody, parseCredentials, readFields } from '../../gateway/ingress/fields.ts'
import { readHead } from '../../gateway/ingress/http2-inbound.ts'
import type { Slot } from '../../gateway/protocol/service.ts'
import { canonicalPath } from '../../gateway/protocol/target.ts'
import { cleanse } from '../../gateway/upstream/headers.ts'
import { requestFields } from '../../gateway/upstream/http2-fields.ts'
import { permitted } from '../rig/permitted.ts'
import { endpoint, grant, inbound, service } from '../upstream/upstream.fixture.ts'
import { nearly } from './mutations.ts'
import { answerOf, must, type Property, property } from './property.ts'
import { PLAIN } from './wordings.fixture.ts'

const NAMES = [
  ...[
    'Host',
    'Connection',
    'Keep-Alive',
    'TE',
    'Transfer-Encoding',
    'Content-Length',
    'Upgrade',
    'Expect',
    'Trailer',
    'Proxy-Authorization',
  ],
  ...[
    'Proxy-Connection',
    'Authorization',
    'X-Api-Key',
    'X_Api_Key',
    'Cookie',
    'Accept-Encoding',
    'Range',
    'Forwarded',
    'X-Forwarded-Host',
  ],
  ...[
    'X-Original-URL',
    'X-HTTP-Method-Override',
    'Keyless-Event',
    'HTTP2-Settings',
    'DPoP',
    'Sec-WebSocket-Protocol',
    'X-Note',
    '__proto__',
  ],
]
const VALUES = [
  ...[
    'chunked',
    '5',
    '0',
    '005',
    '+5',
    '5, 5',
    'keep-alive',
    'close, x-note',
    'host',
    'a=b; session=c',
    'trailers, deflate',
    'gzip;q=1',
  ],
  ...['Bearer x', 'Basic dDp4', 'bearer-token.x, v1', 'websocket', 'bytes=0-1', 'one', ''],
]
/** As the parsers let them through: a token, and a value without a line's end. */
const name = nearly(NAMES, 2).map((text) => text.replaceAll(/[^!#$%&'*+\-.^_`|~0-9A-Za-z]/g, '') || 'X-Note')
const fields = fc.array(fc.tuple(name, nearly(VALUES, 2)), { maxLength: 8 })
const slots: readonly Slot[] = [
  { in: 'header', name: 'X-Api-Key' },
  { in: 'cookie', name: 'session' },
  { in: 'query', name: 'api_key' },
  { in: 'subprotocol', prefix: 'bearer-token.' },
]
const path = nearly([...PLAIN, '/x?api_key=mine&a=1', '/x?a=1&%61pi_key=mine'], 3)
const request = fc.record({ fields, path, hasBody: fc.boolean() })

const HOP = /^(?:connection|keep-alive|transfer-encoding|upgrade|expect|http2[-_]settings|proxy[-_].*|keyless[-_].*)$/i
const REROUTES =
  /^(?:forwarded|x[-_]forwarded[-_](?!for$).*|x[-_]original[-_].*|x[-_]rewrite[-_].*|x[-_]http[-_]method(?:[-_]override)?|x[-_]method[-_]override)$/i
const IN_SLOT = /^(?:x[-_]api[-_]key|authorization|dpop)$/i
const known = service({ slots })

function sentOf(given: { fields: readonly (readonly [string, string])[]; path: string; hasBody: boolean }) {
  const rawHeaders = given.fields.flat()
  const body = given.hasBody ? new Readable({ read() {} }) : null
  return answerOf(() => {
    canonicalPath(given.path) // decided first, or refused
    return cleanse(
      inbound({ rawHeaders, rawPath: given.path, body }),
      permitted({
        endpoint: endpoint({ service: known, rawPath: given.path }),
        grant: grant(),
      }),
    )
  })
}

export const HEADER_PROPERTIES: readonly Property[] = [
  property('what is sent has nothing of a connection, no slot, and no end of a line', request, (given) => {
    const sent = sentOf(given)
    if (sent === undefined) return
    const pairs = sent.headers.flatMap((text, i) => (i % 2 === 0 ? [[text, sent.headers[i + 1] ?? ''] as const] : []))
    must(pairs[0]?.[0] === 'Host' && pairs[0][1] === 'api.example.test', 'the Host that was decided on')
    for (const [field, value] of pairs.slice(1)) {
      must(!HOP.test(field) && !/^host$/i.test(field), `${field} belongs to a connection`)
      must(!REROUTES.test(field), `${field} leads elsewhere`)
      must(!IN_SLOT.test(field), `${field} is a slot`)
      must(!/[\r\n\0]/.test(field + value), `${field} ends a line`)
      if (/^cookie$/i.test(field)) must(!/(?:^|;)\s*session\s*=/.test(value), 'a cookie that is a slot')
      if (/^te$/i.test(field)) must(value === 'trailers', 'a TE other than trailers')
      if (/^sec-websocket-protocol$/i.test(field))
        must(!/(?:^|,)\s*bearer-token\./i.test(value), 'a subprotocol that is a slot')
    }
    const lengths = pairs.filter(([field]) => /^content[-_]length$/i.test(field)).map(([, value]) => value)
    must(lengths.length <= 1 && lengths.every((one) => /^(?:0|[1-9]\d{0,14})$/.test(one)), `lengths ${lengths}`)
    must(given.hasBody || lengths.every((one) => one === '0'), 'a length of a body that is not there')
  }),
  property('what is sent is what was decided on, but for the credential in its query', request, (given) => {
    const sent = sentOf(given)
    if (sent === undefined) return
    must(canonicalPath(sent.path) === canonicalPath(given.path), `${sent.path} and ${given.path}`)
    const query = sent.path.includes('?') ? sent.path.slice(sent.path.indexOf('?')) : ''
    must(!new URLSearchParams(query).has('api_key'), 'the slot in the query')
  }),
  property('over HTTP/2 it is the same in lower case, with one of each pseudo-field', request, (given) => {
    const sent = sentOf(given)
    if (sent === undefined) return
    const flat = requestFields(sent)
    const names = flat.filter((_, i) => i % 2 === 0)
    must(names.slice(0, 4).join() === ':method,:scheme,:authority,:path', 'pseudo-fields first')
    must(flat[5] === 'api.example.test' && flat[7] === sent.path, 'the place')
    for (const field of names.slice(4))
      must(field === field.toLowerCase() && !field.startsWith(':') && field !== 'host' && !HOP.test(field), field)
    must(names.length === 3 + sent.headers.length / 2, 'as many fields')
  }),
  property('fields that decide are there once, or the request is refused', fields, (pairs) => {
    const read = answerOf(() => readFields(pairs.flat()))
    const count = (wanted: string) => pairs.filter(([field]) => field.toLowerCase() === wanted).length
    const isTwice = ['host', 'content-length', 'transfer-encoding', 'proxy-authorization'].some((one) => count(one) > 1)
    must((read === undefined) === isTwice, `twice: ${isTwice}`)
    if (read !== undefined) answerOf(() => hasBody(read))
  }),
  property('credentials are read or are none, and throw nothing', nearly(VALUES), (text) => {
    const presented = parseCredentials(text)
    if (presented !== null) must(presented.token !== '', 'an empty token')
  }),
  property('a head of HTTP/2 loses no field, and gains none', fields, (pairs) => {
    const head = readHead([
      ...[':method', 'GET', ':path', '/', ':scheme', 'https'],
      ...pairs.flatMap(([field, value]) => [field.toLowerCase(), value]),
    ])
    const cookies = pairs.filter(([field]) => field.toLowerCase() === 'cookie').length
    const expected = pairs.length - Math.max(0, cookies - 1)
    must(head.rawHeaders.length === 2 * expected, `${head.rawHeaders.length / 2} of ${expected}`)
    must(head.method === 'GET' && head.path === '/' && head.authority === undefined, 'pseudo-fields')
  }),
]
