import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import type { Slot } from '../../gateway/protocol/service.ts'
import { createPlacement } from '../../gateway/provider/placement/placement.ts'
import { plain, service } from '../lease/lease.fixture.ts'

const slots: readonly Slot[] = [
  { in: 'header', name: 'Authorization', prefix: 'Bearer ' },
  { in: 'basic', username: 'git' },
  { in: 'query', name: 'key' },
  { in: 'cookie', name: 'sid' },
  { in: 'subprotocol', prefix: 'key.' },
]

/** Every sequence of UTF-16 code units, lone surrogates included. */
const units = fc
  .array(fc.nat({ max: 0xffff }), { minLength: 1, maxLength: 12 })
  .map((codes) => String.fromCharCode(...codes))

const place = (value: string, slot: Slot, o: Parameters<typeof plain>[0] = {}) =>
  createPlacement().place({ secret: new Secret(value) }, plain({ service: service({ slots: [slot] }), ...o }))

test('no value whatever adds a second field, line or parameter', () => {
  const nasty = fc.oneof(
    units,
    fc.string({
      unit: fc.constantFrom('a', '\r', '\n', '\0', ' ', ';', '&', '=', '\u0100', '\u00e9', ',', '"', '%', '#'),
      minLength: 1,
    }),
  )
  fc.assert(
    fc.property(nasty, fc.constantFrom(...slots), (value, slot) => {
      try {
        const { headers, path } = place(value, slot)
        expect(headers.length).toBe(slot.in === 'query' ? 2 : 4)
        for (const text of headers) expect(text).toMatch(/^[\x20-\x7e\x80-\xff]*$/)
        expect(path).toMatch(slot.in === 'query' ? /^\/v1\?key=[^&#\s]+$/ : /^\/v1$/)
        if (slot.in === 'query') expect(new URL(path, 'https://a.test').searchParams.get('key')).toBe(value)
        if (slot.in === 'subprotocol') expect(headers[3]).toBe(`key.${value}`)
        if (slot.in === 'cookie') expect(headers[3]?.split(';')).toHaveLength(1)
      } catch (cause) {
        expect(cause).toBeInstanceOf(GatewayError)
        expect((cause as GatewayError).code).toBe('credential_rejected')
        if (value.length > 3) expect((cause as GatewayError).detail).not.toContain(value)
      }
    }),
    { numRuns: 500 },
  )
})

describe('a slot that is still taken is a bug and stops the call', () => {
  test.each([
    ['a field in other letters', slots[0], { headers: ['aUTHORIZATION', 'Bearer agent'] }],
    ['Basic beside a bearer', slots[1], { headers: ['Authorization', 'Bearer agent'] }],
    ['a parameter', slots[2], { path: '/v1?key=agent' }],
    ['an encoded parameter', slots[2], { path: '/v1?a=1&%6bey=agent' }],
    ['a cookie', slots[3], { headers: ['cookie', 'a=b; sid=agent'] }],
    ['a cookie without value', slots[3], { headers: ['cookie', 'sid'] }],
  ] as const)('%s', (_what, slot, o) => {
    expect(() => place('secret', slot as Slot, o)).toThrow('was not cleansed')
  })
})

describe('a query', () => {
  const slot: Slot = { in: 'query', name: 'key' }
  test.each([
    ['/v1', '/v1?key=s'],
    ['/v1?', '/v1?key=s'],
    ['/v1?a=%2F&b', '/v1?a=%2F&b&key=s'],
    ['/v1?a&', '/v1?a&key=s'],
    ['/a%2Fb;c//d?x', '/a%2Fb;c//d?x&key=s'],
  ])('%s keeps its bytes', (path, expected) => {
    expect(place('s', slot, { path }).path).toBe(expected)
  })

  test('names the encoded form when it differs', () => {
    const placement = createPlacement()
    const to = service({ slots: [slot] })
    expect(placement.derived({ secret: new Secret('plain') }, to)).toEqual([])
    expect(placement.derived({ secret: new Secret('a/b c') }, to).map((secret) => secret.reveal())).toEqual([
      'a%2Fb%20c',
    ])
  })
})

test('the same placement tells services with different slots apart', () => {
  const placement = createPlacement()
  const secret = new Secret('secret')
  const [one, two] = [service({ slots: [slots[0] as Slot] }), service({ slots: [slots[1] as Slot] })]
  for (let i = 0; i < 3; i += 1) {
    expect(placement.place({ secret }, plain({ service: one })).headers[3]).toBe('Bearer secret')
    expect(placement.place({ secret }, plain({ service: two })).headers[3]).toMatch(/^Basic /)
  }
})

test('a service without slots gets nothing', () => {
  const request = plain({ service: service({ slots: [] }) })
  expect(createPlacement().place({ secret: new Secret('secret') }, request)).toBe(request)
})

test('a user name with a colon is refused: it would move the border to the password', () => {
  expect(() => place('secret', { in: 'basic', username: 'a:b' })).toThrow(GatewayError)
})
