/** Requests whose beginning, end or form two readers could see in two ways, and what may arrive of each at the upstream. */
import type { Message } from './shapes.fixture.ts'

export interface Attack {
  readonly name: string
  readonly message: Message
  /** What arrives. Null: nothing. */
  readonly sent: { readonly target: string; readonly body: string } | null
  /** Of `watched`, the names that arrive. */
  readonly names?: readonly string[]
}

/** What may arrive. */
export const NOTHING = null
const chunked = (body: string, more: Message = {}): Message => ({
  ...{ method: 'POST', fields: 'Transfer-Encoding: chunked\r\n', body },
  ...more,
})
const post = (fields: string, body = 'hello', more: Message = {}): Message => ({
  ...{ method: 'POST', fields, body },
  ...more,
})
const to = (target: string): Message => ({ target: () => target })
export const fields = (text: string): Message => ({ fields: text })
const WHOLE = '5\r\nhello\r\n0\r\n\r\n'
const HELLO = { target: '/x', body: 'hello' }
export const EMPTY = { target: '/x', body: '' }
const HANDSHAKE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n'

export type Row = readonly [name: string, message: Message, sent: Attack['sent'], names?: readonly string[]]

const framing: readonly Row[] = [
  ['a length', post('Content-Length: 5\r\n'), HELLO],
  ['a length and chunks', post('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', WHOLE), NOTHING],
  ['chunks and a length', post('Transfer-Encoding: chunked\r\nContent-Length: 5\r\n', WHOLE), NOTHING],
  ['two equal lengths', post('Content-Length: 5\r\nContent-Length: 5\r\n'), NOTHING],
  ['two lengths in other case', post('Content-Length: 5\r\ncONTENT-lENGTH: 0\r\n'), NOTHING],
  ['a list of lengths', post('Content-Length: 5, 5\r\n'), NOTHING],
  ['a length with a sign', post('Content-Length: +5\r\n'), NOTHING],
  ['a negative length', post('Content-Length: -5\r\n'), NOTHING],
  ['a hexadecimal length', post('Content-Length: 0x5\r\n'), NOTHING],
  ['a length with an exponent', post('Content-Length: 5e0\r\n'), NOTHING],
  ['an empty length', post('Content-Length:\r\n'), NOTHING],
  ['a length with zeros in front', post('Content-Length: 0005\r\n'), HELLO],
  ['a length of zeros', post('Content-Length: 000\r\n', ''), EMPTY],
  ['a length between tabs', post('Content-Length:\t5\t\r\n'), HELLO],
  ['a length with a vertical tab', post('Content-Length:\v5\r\n'), NOTHING],
  ['a length beyond 2^53', post('Content-Length: 9007199254740993\r\n', 'hello', { isOpen: true }), NOTHING],
  ['a length of 2^64-1', post('Content-Length: 18446744073709551615\r\n', 'hello', { isOpen: true }), NOTHING],
  ['a length beyond 2^64', post('Content-Length: 18446744073709551621\r\n'), NOTHING],
  ['a length that is nominated', post('Connection: content-length\r\nContent-Length: 5\r\n'), NOTHING],
  ['a length with an underscore', post('Content-Length: 5\r\nContent_Length: 0\r\n'), HELLO, []],
  ['chunkedx', chunked(WHOLE, { fields: 'Transfer-Encoding: chunkedx\r\n' }), NOTHING],
  ['xchunked', chunked(WHOLE, { fields: 'Transfer-Encoding: xchunked\r\n' }), NOTHING],
  ['chunked twice', chunked(WHOLE, { fields: 'Transfer-Encoding: chunked, chunked\r\n' }), NOTHING],
  ['chunked not last', chunked(WHOLE, { fields: 'Transfer-Encoding: chunked, identity\r\n' }), NOTHING],
  ['a coding besides', chunked(WHOLE, { fields: 'Transfer-Encoding: gzip, chunked\r\n' }), NOTHING],
  ['chunked with a parameter', chunked(WHOLE, { fields: 'Transfer-Encoding: chunked;q=1\r\n' }), NOTHING],
  ['chunked in quotes', chunked(WHOLE, { fields: 'Transfer-Encoding: "chunked"\r\n' }), NOTHING],
  ['an empty coding', chunked(WHOLE, { fields: 'Transfer-Encoding:\r\n' }), NOTHING],
  ['chunked after a vertical tab', chunked(WHOLE, { fields: 'Transfer-Encoding: \vchunked\r\n' }), NOTHING],
  ['chunked between tabs', chunked(WHOLE, { fields: 'Transfer-Encoding:\tchunked\t\r\n' }), NOTHING],
  ['chunked after a tab', chunked(WHOLE, { fields: 'Transfer-Encoding:\tchunked\r\n' }), HELLO],
  ['chunked in other case', chunked(WHOLE, { fields: 'tRANSFER-eNCODING: cHUNKED\r\n' }), HELLO],
  [
    'a coding that is nominated',
    chunked(WHOLE, { fields: 'Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n' }),
    HELLO,
  ],
  [
    'a coding in two fields',
    chunked(WHOLE, { fields: 'Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n' }),
    NOTHING,
  ],
  ['chunks in HTTP/1.0', chunked(WHOLE, { version: 'HTTP/1.0' }), NOTHING],
  [
    'chunks in HTTP/1.0 that stays',
    chunked(WHOLE, { version: 'HTTP/1.0', fields: 'Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n' }),
    NOTHING,
  ],
  ['a refused path with chunks', chunked(WHOLE, { path: '/a/../x' }), NOTHING],
  ['a refused path with a length', post('Content-Length: 5\r\n', 'hello', { path: '/a/../x' }), NOTHING],
  ['a GET with chunks', chunked(WHOLE, { method: 'GET' }), HELLO],
  ['a GET with a length', post('Content-Length: 5\r\n', 'hello', { method: 'GET' }), HELLO],
]

const chunks: readonly Row[] = [
  ['extensions', chunked('5;a=b;c="d;e"\r\nhello\r\n0;x\r\n\r\n'), HELLO],
  ['an extension with a line feed in quotes', chunked('5;a="\n"\r\nhello\r\n0\r\n\r\n'), NOTHING],
  ['an extension that ends with a line feed', chunked('5;a\nhello\r\n0\r\n\r\n'), NOTHING],
  ['an extension with a carriage return', chunked('5;a\rb\r\nhello\r\n0\r\n\r\n'), NOTHING],
  ['an extension of 70 KB', chunked(`5;${'a'.repeat(70_000)}\r\nhello\r\n0\r\n\r\n`), NOTHING],
  ['a size with a space', chunked('5 \r\nhello\r\n0\r\n\r\n'), NOTHING],
  ['a size after a space', chunked(' 5\r\nhello\r\n0\r\n\r\n'), NOTHING],
  ['a size with zeros in front', chunked('000000000000000005\r\nhello\r\n000\r\n\r\n'), HELLO],
  ['a size with 0x', chunked('0x5\r\nhello\r\n0\r\n\r\n'), NOTHING],
  ['a size with a sign', chunked('+5\r\nhello\r\n0\r\n\r\n'), NOTHING],
  ['a negative size', chunked('-5\r\nhello\r\n0\r\n\r\n'), NOTHING],
  ['a size that overflows', chunked('10000000000000005\r\nhello\r\n0\r\n\r\n'), NOTHING],
  ['a size of nothing', chunked('\r\nhello\r\n0\r\n\r\n'), NOTHING],
  ['a size in other digits', chunked('٥\r\nhello\r\n0\r\n\r\n'), NOTHING],
  ['line feeds', chunked('5\nhello\n0\n\n'), NOTHING],
  ['a carriage return after the size', chunked('5\rhello\r\n0\r\n\r\n'), NOTHING],
  ['more than it says', chunked('5\r\nhello!\r\n0\r\n\r\n'), NOTHING],
  ['less than it says', chunked('6\r\nhello\r\n0\r\n\r\n'), NOTHING],
  ['a line feed after the data', chunked('5\r\nhello\n0\r\n\r\n'), NOTHING],
  ['a last chunk without its line', chunked('5\r\nhello\r\n0\r\n\n'), NOTHING],
  ['trailers', chunked('5\r\nhello\r\n0\r\nX-Late: 1\r\n\r\n'), HELLO, []],
  ['a length in the trailers', chunked('5\r\nhello\r\n0\r\nContent-Length: 9\r\n\r\n'), NOTHING],
  ['a folded trailer', chunked('5\r\nhello\r\n0\r\nX-Late: 1\r\n 2\r\n\r\n'), NOTHING],
]

const requests: readonly Row[] = [
  ['TRACE', { method: 'TRACE' }, NOTHING],
  ['TRACK', { method: 'TRACK' }, NOTHING],
  ['CONNECT with a path', { method: 'CONNECT' }, NOTHING],
  ['CONNECT inside or out, and a request behind it', { method: 'CONNECT', target: () => 'nobody.test:1' }, NOTHING],
  ['a method in lower case', { method: 'get' }, NOTHING],
  ['a method in mixed case', { method: 'Get' }, NOTHING],
  ['a method nobody knows', { method: 'FROBNICATE' }, NOTHING],
  ['a method no operation has', { method: 'PURGE' }, NOTHING],
  ['a tab after the method', { method: 'GET\t' }, NOTHING],
  ['no version', { version: '' }, NOTHING],
  ['HTTP/0.9', { version: 'HTTP/0.9' }, NOTHING],
  ['HTTP/1.2', { version: 'HTTP/1.2' }, NOTHING],
  ['HTTP/2.0', { version: 'HTTP/2.0' }, NOTHING],
  ['a version in lower case', { version: 'http/1.1' }, NOTHING],
  ['a word after the version', { version: 'HTTP/1.1 x' }, NOTHING],
  ['two spaces after the target', { version: ' HTTP/1.1' }, EMPTY],
  ['no Host', { host: '' }, NOTHING],
  ['two Hosts', fields('Host: nobody.test\r\n'), NOTHING],
  ['an asterisk', { method: 'OPTIONS', ...to('*') }, NOTHING],
  ['a scheme of its own', to('ftp://safe.keyless.test/x'), NOTHING],
  ['a scheme without slashes', to('http:safe.keyless.test/x'), NOTHING],
  ['no slash', to('x'), NOTHING],
  ['a handshake that is none', { path: '/ws', fields: HANDSHAKE.replace('13', '12') }, NOTHING],
  ['a handshake where there is none', fields(HANDSHAKE), NOTHING],
  ['a handshake with content', { path: '/ws', fields: `${HANDSHAKE}Content-Length: 5\r\n`, body: 'hello' }, NOTHING],
  ['a handshake by POST', { path: '/ws', method: 'POST', fields: HANDSHAKE }, NOTHING],
  ['a handshake in HTTP/1.0', { path: '/ws', version: 'HTTP/1.0', fields: HANDSHAKE }, NOTHING],
  ['websocket or h2c', { path: '/ws', fields: HANDSHAKE.replace('websocket', 'websocket, h2c') }, NOTHING],
  ['a handshake, and a request behind it', { path: '/ws', fields: HANDSHAKE }, { target: '/ws', body: '' }],
  ['h2c', fields('Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n'), EMPTY, []],
  [
    'h2c with content',
    post('Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nContent-Length: 5\r\n'),
    HELLO,
    [],
  ],
  [
    'h2c with chunks',
    chunked(WHOLE, { fields: 'Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n' }),
    HELLO,
    [],
  ],
  ['TLS as an offer', fields('Connection: Upgrade\r\nUpgrade: TLS/1.0, HTTP/1.1\r\n'), EMPTY, []],
  ['the preface of HTTP/2', { method: 'PRI', version: 'HTTP/2.0', ...to('*') }, NOTHING],
]

export const attacks = (rows: readonly Row[]): Attack[] =>
  rows.map(([name, message, sent, names]) => ({ name, message, sent, ...(names && { names }) }))

/** What is settled by how the connection is read. */
export const FRAMINGS: readonly Attack[] = attacks([framing, chunks, requests].flat())
