/** Requests whose fields or path two readers could understand in two ways, and what may arrive of each at the upstream. */
import { type Attack, attacks, EMPTY, fields, NOTHING, type Row } from './framings.fixture.ts'

const lines: readonly Row[] = [
  ['a folded field', fields('X-A: 1\r\n 2\r\n'), NOTHING],
  ['a field after a space', fields(' X-A: 1\r\n'), NOTHING],
  ['a bare line feed', fields('X-A: 1\nX-B: 2\r\n'), NOTHING],
  ['a bare carriage return', fields('X-A: 1\rX-B: 2\r\n'), NOTHING],
  ['a NUL', fields('X-A: 1\x002\r\n'), NOTHING],
  ['a control byte', fields('X-A: 1\x012\r\n'), NOTHING],
  ['an escape', fields('X-A: \x1b[2J\r\n'), NOTHING],
  ['a DEL', fields('X-A: 1\x7f\r\n'), NOTHING],
  ['a byte of Latin 1', fields('X-A: \xe9\xff\r\n'), EMPTY, ['x-a']],
  ['a byte of Latin 1 in a name', fields('X-\xe9: 1\r\n'), NOTHING],
  ['a space before the colon', fields('X-A : 1\r\n'), NOTHING],
  ['a tab before the colon', fields('X-A\t: 1\r\n'), NOTHING],
  ['an empty name', fields(': 1\r\n'), NOTHING],
  ['no colon', fields('X-A\r\n'), NOTHING],
  ['a quote in a name', fields('"X-A": 1\r\n'), NOTHING],
  ['a pseudo-field', fields(':path: /admin\r\n'), NOTHING],
  [
    'names of Object.prototype',
    fields('__proto__: 1\r\nconstructor: 2\r\ntoString: 3\r\n'),
    EMPTY,
    ['__proto__', 'constructor', 'tostring'],
  ],
  [
    'what Connection nominates',
    fields('Connection: x-a, X-B,\tx-c\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\nX-D: 4\r\n'),
    EMPTY,
    ['x-d'],
  ],
  ['Host nominated', fields('Connection: host\r\n'), NOTHING],
  ['a cookie nominated', fields('Connection: close, cookie\r\nCookie: a=b\r\n'), NOTHING],
  ['the content type nominated', fields('Connection: Content-Type\r\nContent-Type: text/plain\r\n'), NOTHING],
  [
    'ways to another place',
    fields(
      'X-Original-URL: /a\r\nX-Rewrite-URL: /a\r\nX-Forwarded-Host: a\r\nX-Forwarded-Prefix: /a\r\nX-Forwarded-Proto: a\r\nForwarded: host=a\r\nX_Forwarded_Host: a\r\n',
    ),
    EMPTY,
    [],
  ],
  [
    'ways to another method',
    fields(
      'X-HTTP-Method-Override: PUT\r\nX-HTTP-Method: PUT\r\nX-Method-Override: PUT\r\nX_HTTP_Method_Override: PUT\r\n',
    ),
    EMPTY,
    [],
  ],
  [
    'names for credentials',
    fields('Authorization: Bearer x\r\nAUTHORIZATION: y\r\nProxy-Authorization_: z\r\nProxy-X: 1\r\nKeyless-X: 1\r\n'),
    EMPTY,
    [],
  ],
  [
    'its own stuff twice',
    fields('User-Agent: a\r\nUser-Agent: b\r\nReferer: a\r\nReferer: b\r\n'),
    EMPTY,
    ['user-agent', 'user-agent', 'referer', 'referer'],
  ],
]

/** Paths that are refused, each for what some server makes of it. */
export const AMBIGUOUS: readonly string[] = [
  ...[
    '/..',
    '/../x',
    '/a/../x',
    '/a/./x',
    '/a/..',
    '/.',
    '/a/..;/x',
    '/a/%2e%2e/x',
    '/a/%2E%2e/x',
    '/a/.%2e/x',
    '/%2e/x',
  ],
  ...[
    '/a/%252e%252e/x',
    '/a%252fx',
    '/%25252e',
    '/a;b',
    '/a;b=c/x',
    '/a%3bb',
    '/a\\x',
    '/a%5cx',
    '/a/..\\x',
    '//x',
    '/a//x',
    '/a/%2F/x',
  ],
  ...[
    '/a%2fx',
    '/a%2Fx',
    '/%00',
    '/a%00.png',
    '/%0a',
    '/%0d%0aX-A:%201',
    '/%7f',
    '/%',
    '/%2',
    '/%zz',
    '/%u002f',
    '/%u002e%u002e',
  ],
  ...[
    '/%c0%ae%c0%ae/x',
    '/%c0%af',
    '/%e0%80%ae',
    '/%ed%a0%80',
    '/%ff',
    '/\xc3\xa9',
    '/a\tb',
    '/a\x0cb',
    '/%ef%bc%8f',
    '/%e2%80%a4%e2%80%a4/x',
  ],
  ...['/a#b', '/a?b#c', '/a?b\tc', '/a?b\xe9', '/a?\x7f', '/x?_method=DELETE', '/x?%5fmethod=DELETE'],
]

/** Paths that are sent as they come, and decided by what they mean. */
export const PLAIN: readonly string[] = [
  ...[
    '/',
    '/x/',
    '/%78',
    '/%41%42',
    '/a%20b',
    '/a+b',
    '/a%2Bb',
    '/%C3%A9',
    '/a:b@c',
    "/a!$&'()*,=~",
    '/a..b',
    '/...',
    '/..a',
    '/a%2Eb',
  ],
  ...[
    '/x?',
    '/x?a=1&a=2',
    '/x?a=%2e%2e/%2F',
    '/x?a=//b',
    '/x?a=b?c',
    '/x?%zz',
    '/x?a;b',
    '/x?"<>^`{|}[]',
    '/?x',
    '/a|b',
    '/a"b',
    '/a[0]',
  ],
]

const paths: readonly Row[] = [
  ...AMBIGUOUS.map((path): Row => [`the path ${JSON.stringify(path)}`, { path }, NOTHING]),
  ...PLAIN.map((path): Row => [`the path ${JSON.stringify(path)}`, { path }, { target: path, body: '' }]),
]

/** Names that nobody but the agent can have written. */
export const WATCHED =
  /^(?:x-|x_|__proto__|constructor|tostring|user-agent|referer|upgrade|http2|forwarded|proxy-|keyless-|content_|te$|trailer|cookie)/i

/** What is settled by the request itself, once it has been read. */
export const WORDINGS: readonly Attack[] = attacks([lines, paths].flat())

/** Authorities that name no place, or another one, in absolute form, CONNECT, Host and SOCKS. `{host}` and `{port}` are the true ones. */
export const AUTHORITIES: readonly string[] = [
  ...[
    '{host}',
    '{host}:',
    '{host}:0',
    '{host}:00{port}',
    '{host}:+{port}',
    '{host}:-1',
    '{host}: {port}',

    '{host}:99999',
  ],
  ...[
    '{host}:{port}:1',
    '{host}:0x50',
    '{host}:٤٤٣',
    'u@{host}:{port}',
    'u:p@{host}:{port}',
    '{host}:{port}@nobody.test',
    '@{host}:{port}',
  ],
  ...[
    'nobody.test#@{host}:{port}',
    'nobody.test\\@{host}:{port}',
    '{host}\\.nobody.test',
    '{host}%00:{port}',
    '{host}%2enobody:{port}',
    '{host}..:{port}',
  ],
  ...[
    '.{host}:{port}',
    '-{host}:{port}',
    '{host},nobody.test',
    '{host};x:{port}',
    'sаfe.keyless.test:{port}',
    'safe。keyless。test:{port}',
  ],
  ...[
    'ſafe.keyless.test:{port}',
    'xn--safe.keyless.test:{port}',
    '[::1%25eth0]:{port}',
    '[::1%eth0]:{port}',
    '[::1:{port}',
    '::1:{port}',
    '[{host}]:{port}',
  ],
  ...[
    '127.1:{port}',
    '2130706433:{port}',
    '0x7f000001:{port}',
    '0177.0.0.1:{port}',
    '127.0.0.1.:{port}',
    '[::ffff:127.0.0.1]:{port}',
    '[v1.x]:{port}',
    ':{port}',
    '',
  ],
]

/** Spellings of the true one. */
export const SAME: readonly string[] = ['{host}:{port}', '{HOST}:{port}', '{host}.:{port}', '{HOST}.:{port}']
