/** What may be read two ways is not read at all (SECURITY.md 3, standards.md H32). */
import { createServer } from 'node:http'
import { connect } from 'node:net'
import { gzipSync } from 'node:zlib'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { readContent } from '../../gateway/upstream/content.ts'
import { exchange, inbound, listen, service, shut } from './upstream.fixture.ts'

interface Reading {
  readonly json?: unknown
  readonly bytes?: Buffer
  readonly refused?: GatewayError
}

const readings: Reading[] = []
const server = createServer((request, response) => {
  readContent(inbound({ method: request.method ?? '', rawHeaders: request.rawHeaders, body: request }), service(), true)
    .then(
      ({ content }) => readings.push({ ...content }),
      (refused: GatewayError) => readings.push({ refused }),
    )
    .finally(() => response.writeHead(204, { connection: 'close' }).end())
})
let port: number
beforeAll(async () => {
  port = await listen(server)
})
afterAll(() => shut(server))

async function read(body: string | Buffer, fields: readonly string[] = ['Content-Type: application/json']) {
  const bytes = Buffer.from(body)
  const head = ['POST / HTTP/1.1', 'Host: x', `Content-Length: ${bytes.length}`, ...fields, '', ''].join('\r\n')
  await exchange(port, Buffer.concat([Buffer.from(head, 'latin1'), bytes]))
  return readings.at(-1) as Reading
}

describe('content that everybody reads alike', () => {
  it.each([
    ['application/json'],
    ['application/json; charset=utf-8'],
    ['application/json;charset="UTF-8"'],
    ['Application/JSON'],
    ['application/vnd.api+json'],
  ])('is read and kept byte for byte as %s', async (type) => {
    const text = ' {"model":"small",\n"n": 1.0, "who":"Zoë"} '
    const reading = await read(text, [`Content-Type: ${type}`])
    expect(reading.json).toEqual({ model: 'small', n: 1, who: 'Zoë' })
    expect(reading.bytes).toEqual(Buffer.from(text))
  })

  it('is read in chunks, and up to 1 MiB', async () => {
    const text = JSON.stringify({ text: 'x'.repeat(1024 * 1024 - 11) })
    expect(text).toHaveLength(1024 * 1024)
    expect((await read(text)).bytes).toHaveLength(1024 * 1024)
    const [half, rest] = ['{"a"', ':1}']
    await exchange(
      port,
      `POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n${half}\r\n3\r\n${rest}\r\n0\r\n\r\n`,
    )
    expect(readings.at(-1)).toMatchObject({ json: { a: 1 }, bytes: Buffer.from('{"a":1}') })
  })

  it('is any JSON value there is, and comes out as it went in', async () => {
    await fc.assert(
      fc.asyncProperty(fc.jsonValue({ maxDepth: 4, stringUnit: 'grapheme-ascii' }), async (value) => {
        const { json, refused } = await read(JSON.stringify(value))
        if (refused === undefined) expect(json).toEqual(JSON.parse(JSON.stringify(value)))
        else expect(refused.detail).toContain('differ only in case')
      }),
      { numRuns: 100 },
    )
  })
})

describe('content that two readers could take for two things', () => {
  const json = '{"model":"small"}'
  it.each<[string, string | Buffer, string[]?]>([
    ['the same name twice', '{"model":"small","model":"large"}'],
    ['the same name twice, once escaped', '{"model":"small","mod\\u0065l":"large"}'],
    ['the same name twice, deep down', '{"a":[{"b":{"c":1,"c":2}}]}'],
    ['names that differ in case', '{"model":"small","Model":"large"}'], // Go takes the last one
    ['names that fold to one', '{"task":1,"taſk":2}'],
    ['two values', `${json}${json}`],
    ['nothing', ''],
    ['a byte order mark', `\ufeff${json}`],
    ['UTF-16', Buffer.from(json, 'utf16le')],
    ['bytes that are no UTF-8', Buffer.from([0x22, 0xff, 0x22])],
    ['overlong UTF-8', Buffer.from([0x22, 0xc0, 0xae, 0x22])],
    ['half a surrogate pair', '{"a":"\\ud800"}'],
    ['comments', '{"model":"small"/*,"model":"large"*/}'],
    ['a trailing comma', '{"model":"small",}'],
    ['single quotes', "{'model':'small'}"],
    ['not a number', '{"n":NaN}'],
    ['more than 32 levels', `${'['.repeat(33)}${']'.repeat(33)}`],
    ['more than 1 MiB', JSON.stringify({ text: 'x'.repeat(1024 * 1024) })],
    ['no type', json, []],
    ['two types', json, ['Content-Type: application/json', 'Content-Type: application/json']],
    ['a type under a second spelling', json, ['Content-Type: application/json', 'Content_Type: text/plain']],
    ['a form', 'model=small', ['Content-Type: application/x-www-form-urlencoded']],
    ['a form called JSON too', json, ['Content-Type: multipart/form-data; boundary=application/json']],
    ['a list of types', json, ['Content-Type: application/json, text/plain']],
    ['another charset', json, ['Content-Type: application/json; charset=utf-16']],
    ['two charsets', json, ['Content-Type: application/json; charset=utf-8; charset=utf-7']],
    ['an unknown parameter', json, ['Content-Type: application/json; boundary=x']],
    ['plain text', json, ['Content-Type: text/plain']],
    ['gzip', gzipSync(json), ['Content-Type: application/json', 'Content-Encoding: gzip']],
    ['gzip that is not', json, ['Content-Type: application/json', 'Content-Encoding: gzip']],
    ['gzip under another spelling', json, ['Content-Type: application/json', 'content_encoding: gzip']],
    ['an empty coding', json, ['Content-Type: application/json', 'Content-Encoding:']],
    ['two codings', json, ['Content-Type: application/json', 'Content-Encoding: identity', 'Content-Encoding: br']],
  ])('is refused: %s', async (_, body, fields) => {
    const { refused, json: seen } = await read(body, fields)
    expect(seen).toBeUndefined()
    expect(refused).toBeInstanceOf(GatewayError)
    expect(refused?.code).toBe('constraint_unmet')
    expect(refused?.detail).not.toContain('small') // refusals repeat no body
  })

  it('is refused when it breaks off', async () => {
    const before = readings.length
    const socket = connect(port, '127.0.0.1')
    const head = 'POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n'
    socket.write(`${head}{"model"`, () => socket.destroy())
    await expect.poll(() => readings.length).toBe(before + 1)
    expect(readings.at(-1)?.refused?.code).toBe('request_malformed')
  })
})

it('leaves a request without a body alone', async () => {
  const call = inbound()
  expect(await readContent(call, service(), true)).toBe(call)
})
