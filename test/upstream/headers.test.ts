import { Readable } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { RawHeaders } from '../../gateway/protocol/message.ts'
import type { GatewayError } from '../../gateway/protocol/problem.ts'
import type { Slot } from '../../gateway/protocol/service.ts'
import { cleanse } from '../../gateway/upstream/headers.ts'
import { permitted } from '../rig/permitted.ts'
import { endpoint, grant, inbound, service } from './upstream.fixture.ts'

function cleansed(rawHeaders: RawHeaders, slots?: readonly Slot[], rawPath = '/', body: Readable | null = null) {
  const place = endpoint({ service: service(slots === undefined ? {} : { slots }), rawPath })
  const { headers, path } = cleanse(
    inbound({ rawHeaders, rawPath, body }),
    permitted({ endpoint: place, grant: grant() }),
  )
  return { headers: headers.slice(2), host: headers[1], path }
}

function refusal(rawHeaders: RawHeaders, change: Parameters<typeof inbound>[0] = {}): string {
  try {
    cleanse(
      inbound({ rawHeaders, ...change }),
      permitted({
        endpoint: endpoint(change?.rawPath === undefined ? {} : { rawPath: change.rawPath }),
        grant: grant(),
      }),
    )
  } catch (cause) {
    return (cause as GatewayError).code
  }
  return 'none'
}

describe('cleanse', () => {
  it.each([
    ['Connection', 'close'],
    ['connection', 'Keep-Alive'],
    ['Keep-Alive', 'timeout=5'],
    ['Proxy-Authorization', 'Basic x'],
    ['proxy-connection', 'keep-alive'],
    ['PROXY-ANYTHING', 'x'],
    ['TE', 'gzip'],
    ['Upgrade', 'h2c'],
    ['HTTP2-Settings', 'AAMAAABkAAQ'],
    ['Expect', '100-continue'],
    ['Authorization', 'Bearer mine'],
    ['AUTHORIZATION', 'Basic mine'],
    ['X-Api-Key', 'mine'],
    ['X-HTTP-Method-Override', 'DELETE'],
    ['X-HTTP-Method', 'DELETE'],
    ['X-Method-Override', 'DELETE'],
    ['Keyless-Event', 'forged'],
    ['X_HTTP_Method_Override', 'DELETE'],
    ['X-Original-URL', '/admin'],
    ['X-Rewrite-URL', '/admin'],
    ['X_Rewrite_URL', '/admin'],
    ['X-Original-Method', 'DELETE'],
    ['X-Forwarded-Host', 'elsewhere.test'],
    ['X-Forwarded-Prefix', '/admin'],
    ['Forwarded', 'host=elsewhere.test'],
    ['X_Api_Key', 'of the agent'],
    ['Content_Length', '7'],
    ['Accept-Charset', 'utf-32'],
    ['Range', 'bytes=0-1'],
    ['If-Range', '"x"'],
    ['A-IM', 'gzip'],
    ['grpc-accept-encoding', 'identity, deflate, gzip'],
    ['Grpc_Accept_Encoding', 'gzip'],
    ['connect-accept-encoding', 'gzip'],
    ['Host', 'elsewhere.test'],
    [':path', '/'],
  ])('drops %s: %s', (name, value) => {
    expect(cleansed([name, value], [{ in: 'header', name: 'x-api-key' }]).headers).toEqual([])
  })

  it.each([
    ['X-Forwarded-For', '10.0.0.1'],
    ['Via', '1.1 agent'],
    ['X_Trace_Id', '7'],
    ['Cookie', 'a=b'],
    ['X-Api-Key', 'not a slot here'],
    ['Trailer', 'X-Sum'],
    ['Content-Type', 'application/json'],
    ['mcp-session-id', '1'],
  ])('keeps %s: %s', (name, value) => {
    expect(cleansed([name, value]).headers).toEqual([name, value])
  })

  it('keeps ranges and codings for a service without slots, and drops Authorization even there', () => {
    const raw = ['Range', 'bytes=0-1', 'Accept-Encoding', 'gzip', 'Authorization', 'Bearer handle']
    expect(cleansed(raw, []).headers).toEqual(raw.slice(0, 4))
  })

  it('drops what Connection nominates, and nothing that is meant for the upstream', () => {
    expect(cleansed(['X-A', '1', 'Connection', 'close, x-a , X-B', 'X-B', '2', 'X-C', '3']).headers).toEqual([
      'X-C',
      '3',
    ])
    expect(cleansed(['TE', 'trailers', 'Connection', 'TE']).headers).toEqual(['TE', 'trailers'])
    for (const name of ['Host', 'content-length', 'Authorization', 'Cookie', 'Content-Type', 'Cache-Control']) {
      expect(refusal(['Connection', `close, ${name}`])).toBe('request_malformed')
    }
  })

  it('writes the host that policy decided on', () => {
    const host = (change: Parameters<typeof endpoint>[0]) =>
      cleanse(inbound(), permitted({ endpoint: endpoint(change), grant: grant() })).headers.slice(0, 2)
    expect(host({ scheme: 'https', port: 443 })).toEqual(['Host', 'api.example.test'])
    expect(host({ scheme: 'http', port: 443 })).toEqual(['Host', 'api.example.test:443'])
    expect(host({ scheme: 'https', port: 8443, host: '::1' })).toEqual(['Host', '[::1]:8443'])
  })

  it.each([
    [['Content-Length', '5', 'content-length', '5'], 'two lengths'],
    [['Content-Length', '5', 'Transfer-Encoding', 'chunked'], 'length and chunks'],
    [['Content-Length', '+5'], 'a sign'],
    [['Content-Length', '5, 5'], 'a list'],
    [['Transfer-Encoding', 'gzip, chunked'], 'another coding'],
    [['Transfer-Encoding', 'xchunked'], 'a coding that only looks so'],
    [['Transfer-Encoding', 'chunked', 'Transfer-Encoding', 'chunked'], 'chunks twice'],
    [['X-A', 'a\r\nAuthorization: b'], 'a line break'],
    [['X-A', 'a\0b'], 'a NUL'],
    [['X-A', 'a\u0100b'], 'no latin1'],
  ])('refuses %j: %s', (raw) => {
    expect(refusal(raw, { body: Readable.from([]) })).toBe('request_malformed')
  })

  it.each(['TRACE', 'TRACK', 'CONNECT'])('refuses %s', (method) => {
    expect(refusal([], { method })).toBe('method_refused')
  })

  it.each(['*', 'http://elsewhere.test/', ''])('refuses the path %j', (rawPath) => {
    expect(refusal([], { rawPath })).toBe('request_malformed')
  })

  it('keeps Content-Length once, and not without a body', () => {
    expect(cleansed(['content-length', '5'], undefined, '/', Readable.from([])).headers).toEqual([
      'Content-Length',
      '5',
    ])
    expect(cleansed(['content-length', '5']).headers).toEqual([])
    expect(cleansed(['content-length', '0']).headers).toEqual(['Content-Length', '0'])
  })

  it.each([
    ['/a?key=1', '/a'],
    ['/a?key=1&b=2', '/a?b=2'],
    ['/a?b=2&k%65y=1&c', '/a?b=2&c'],
    ['/a?b=2&key', '/a?b=2'],
    ['/a?key=1&key=2', '/a'],
    ['/a?keys=1', '/a?keys=1'],
    ['/a?b=key=1', '/a?b=key=1'],
    ['/key=1', '/key=1'],
    ['/a%2Fb//c?', '/a%2Fb//c?'],
    ['/a?%ff=1', '/a?%ff=1'],
  ])('takes the credential parameter out of %s: %s', (rawPath, path) => {
    expect(cleansed([], [{ in: 'query', name: 'key' }], rawPath).path).toBe(path)
  })

  it.each([
    ['sid=1', []],
    ['a=1; sid=2; b=3', ['Cookie', 'a=1; b=3']],
    ['sid=2; a=1', ['Cookie', 'a=1']],
    ['sidx=1;a', ['Cookie', 'sidx=1;a']],
    ['a=1, sid=2; b=3,4', ['Cookie', 'b=3,4']], // RFC 2109
  ])('takes the credential cookie out of %s', (value, headers) => {
    expect(cleansed(['Cookie', value], [{ in: 'cookie', name: 'sid' }]).headers).toEqual(headers)
  })

  it.each([
    ['realtime, openai-insecure-api-key.sk-agent', ['Sec-WebSocket-Protocol', 'realtime']],
    ['OpenAI-Insecure-API-Key.sk-agent,realtime', ['Sec-WebSocket-Protocol', 'realtime']],
    ['openai-insecure-api-key.sk-agent', []],
    ['realtime, other', ['Sec-WebSocket-Protocol', 'realtime, other']],
  ])('takes the key out of the subprotocols %s', (value, headers) => {
    const slots = [{ in: 'subprotocol', prefix: 'openai-insecure-api-key.' }] as const
    expect(cleansed(['Sec-WebSocket-Protocol', value], slots).headers).toEqual(headers)
  })

  it('leaves every byte of a path alone when no parameter is a credential', () => {
    const path = fc.string({ unit: fc.integer({ min: 0x21, max: 0xff }).map((c) => String.fromCharCode(c)) })
    fc.assert(
      fc.property(path, (rest) => {
        expect(cleansed([], undefined, `/${rest}`).path).toBe(`/${rest}`)
      }),
    )
  })

  it('lets no value through in a slot, however the name is written, however many names came before', () => {
    const anyCase = fc.tuple(
      fc.constantFrom('authorization', 'x-api-key', 'proxy-authorization', 'keyless-task'),
      fc.array(fc.boolean(), { minLength: 20, maxLength: 20 }),
    )
    const noise = fc.array(fc.stringMatching(/^[a-z-]{1,80}$/), { maxLength: 30 })
    const slots: readonly Slot[] = [{ in: 'header', name: 'X-Api-Key' }]
    fc.assert(
      fc.property(anyCase, noise, ([name, upper], names) => {
        const written = [...name].map((c, i) => (upper[i] ? c.toUpperCase() : c)).join('')
        const raw = [...names.flatMap((n) => [n, 'x']), written, 'mine']
        expect(cleansed(raw, slots).headers).not.toContain('mine')
      }),
      { numRuns: 500 },
    )
  })

  it.each(['forward', 'intercept', 'reverse'] as const)(
    'keeps what a caller says of its prompt from the upstream, also in a handshake: %s',
    (mode) => {
      const upgrade = { protocol: 'websocket', accept: () => undefined as never } as const
      const names = ['Keyless-Prompt-Hash', 'keyless-prompt-hash', 'keyless_prompt_hash']
      for (const more of [{}, { isHttp2: true }, { upgrade }])
        for (const passesOwn of [false, true]) {
          const rawHeaders = names.flatMap((name) => [name, `sha256:${'ab'.repeat(32)}`])
          const to = permitted({ endpoint: endpoint({ service: service({ slots: [], passesOwn }) }), grant: grant() })
          expect(cleanse(inbound({ rawHeaders, mode, ...more }), to).headers.slice(2)).toEqual([])
        }
    },
  )

  it('lets what the API itself handed out pass where the service file says so, but never the grant of a reverse route', () => {
    const slots: readonly Slot[] = [
      { in: 'basic', username: 'x' },
      { in: 'header', name: 'x-api-key' },
    ]
    const passing = service({ slots, passesOwn: true })
    const sent = (mode: 'intercept' | 'reverse', place = passing) => {
      const rawHeaders = ['Authorization', 'RemoteAuth one', 'X-Api-Key', 'two', 'Proxy-Authorization', 'Basic three']
      return cleanse(
        inbound({ rawHeaders, mode }),
        permitted({
          endpoint: endpoint({ service: place }),
          grant: grant(),
        }),
      ).headers.slice(2)
    }
    // One after the other, since what is known of a header name is remembered.
    for (let i = 0; i < 2; i++) {
      expect(sent('reverse')).toEqual([])
      expect(sent('intercept')).toEqual(['Authorization', 'RemoteAuth one', 'X-Api-Key', 'two'])
      expect(sent('intercept', service({ slots }))).toEqual([])
    }
  })

  it('isolates by tenant and grant', () => {
    const key = (id: string, tenant: string) =>
      cleanse(inbound(), permitted({ endpoint: endpoint(), grant: grant(id, tenant) })).isolation
    expect(key('1', 'a')).toBe(key('1', 'a'))
    expect(new Set([key('1', 'a'), key('2', 'a'), key('1', 'b'), key('2', 'b')]).size).toBe(4)
  })
})
