/** Whatever an agent sends, to whatever service: one credential leaves, and it is ours. */

import { Readable } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createLocator } from '../../gateway/policy/catalogue/locate.ts'
import { readService, type ServiceDescription } from '../../gateway/policy/catalogue/service-file.ts'
import { assembleService } from '../../gateway/policy/catalogue/site.ts'
import type { Outbound } from '../../gateway/protocol/message.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import type { Service, Slot } from '../../gateway/protocol/service.ts'
import { createPlacement } from '../../gateway/provider/placement/placement.ts'
import { needsContent, readContent } from '../../gateway/upstream/content.ts'
import { cleanse } from '../../gateway/upstream/headers.ts'
import { permitted } from '../rig/permitted.ts'
import { grant, HOST, inbound } from './upstream.fixture.ts'

const OURS = 'our-credential-0815'
const MINE = 'agents-own-4711'

const slot: fc.Arbitrary<Slot> = fc.constantFrom<Slot>(
  { in: 'header', name: 'x-api-key' },
  { in: 'header', name: 'authorization', prefix: 'Bearer ' },
  { in: 'basic', username: 'x' },
  { in: 'query', name: 'key' },
  { in: 'cookie', name: 'sid' },
  { in: 'body', pointer: '/auth/key' },
  { in: 'body', pointer: '/key' },
  { in: 'form', name: 'token' },
  { in: 'path', prefix: 'bot' },
)
const slots = fc.uniqueArray(slot, { minLength: 1, maxLength: 4, selector: (one) => JSON.stringify(one) })

/** Spellings of a name that some server reads as it. */
const spelt = (name: string) =>
  fc.constantFrom(
    name,
    name.toUpperCase(),
    `${name}[]`,
    `${name}[0]`,
    `%${name.charCodeAt(0).toString(16)}${name.slice(1)}`,
    `+${name}`,
    `${name}%00x`,
    `a=1;${name}`,
  )

const call = fc.record({
  slots,
  keyed: fc.boolean(),
  where: fc.uniqueArray(fc.constantFrom('header', 'query', 'cookie', 'body', 'path'), { maxLength: 5 }),
  query: spelt('key'),
  field: spelt('token'),
  json: fc.constantFrom('key', 'KEY', 'Key', '\\u006bey'),
  isForm: fc.boolean(),
  method: fc.constantFrom('GET', 'POST', 'PUT'),
  header: fc.constantFrom('X-API-Key', 'x_api_key', 'Authorization', 'AUTHORIZATION'),
})

type Call = typeof call extends fc.Arbitrary<infer Value> ? Value : never

function serviceOf(wanted: readonly Slot[]) {
  const description = readService(
    {
      ...{ name: 'example', title: 'Example', hosts: [HOST], slots: wanted },
      operations: { all: { match: ['GET /{path**}', 'POST /{path**}', 'PUT /{path**}'], access: 'write' } },
    },
    'test',
  ) as ServiceDescription
  return assembleService(description, [])
}

async function sent({ slots: wanted, where, ...o }: Call): Promise<Outbound> {
  const has = (place: string) => where.includes(place as never)
  const site = serviceOf(wanted)
  const type = o.isForm ? 'application/x-www-form-urlencoded' : 'application/json'
  const text = o.isForm
    ? `q=1&${o.field}=${MINE}&z=2`
    : `{"n":1.0,"${o.json}":"${MINE}","auth":{"${o.json}":"${MINE}"},"token":"${MINE}"}`
  const body = has('body') && o.method !== 'GET' ? Buffer.from(text) : null
  const path = has('path') ? `/bot${MINE}/x` : wanted[0]?.in === 'path' ? '/bot/x' : '/v1/x'
  const call = inbound({
    method: o.method,
    scheme: 'https',
    port: 443,
    rawPath: `${path}?a=b${has('query') ? `&${o.query}=${MINE}` : ''}`,
    rawHeaders: [
      ...(has('header') ? [o.header, `Bearer ${MINE}`] : []),
      ...(has('cookie') ? ['Cookie', `a=b; sid=${MINE}; SID=${MINE}`] : []),
      ...(body ? ['Content-Type', type, 'Content-Length', String(body.length)] : []),
    ],
    body: body && Readable.from([body]),
  })
  const endpoint = createLocator([site])(call)
  const { service } = endpoint
  const whole = needsContent(service, call) ? await readContent(call, service, false) : call
  const plain = cleanse(whole, permitted({ endpoint, grant: grant() }))
  return createPlacement().place({ secret: new Secret(OURS) }, plain)
}

function textOf({ path, headers, body }: Outbound): string {
  const decoded = headers.map((field) =>
    /^Basic /.test(field) ? Buffer.from(field.slice(6), 'base64').toString() : field,
  )
  return [path, ...decoded, Buffer.isBuffer(body) ? body.toString() : ''].join('\n')
}

/** Places of the head in which something of the agent's is left, though the service has slots there. */
function leftInHead({ path, headers }: Outbound, wanted: readonly Slot[]): string[] {
  const [place = '', query = ''] = path.split('?')
  const field = (name: string) => headers.filter((_, i) => i % 2 === 1 && headers[i - 1]?.toLowerCase() === name).join()
  const left = wanted.map((one): [string, string] => {
    switch (one.in) {
      case 'header':
        return [one.name, field(one.name) + field(one.name.replaceAll('-', '_'))]
      case 'basic':
        return [one.in, field('authorization')]
      case 'query':
        return [one.in, query]
      case 'cookie':
        return [one.in, field('cookie')]
      case 'path':
        return [one.in, place]
      default:
        return [one.in, '']
    }
  })
  return left.filter(([, text]) => text.includes(MINE)).map(([name]) => name)
}

describe('for any request and any service', () => {
  test('the outgoing request holds exactly one credential value, ours, and none of the agent’s in a slot', async () => {
    await fc.assert(
      fc.asyncProperty(call, async (one) => {
        let outbound: Outbound
        try {
          outbound = await sent(one)
        } catch (cause) {
          // A filled slot that this request cannot have is refused, and nothing leaves.
          expect(cause).toBeInstanceOf(GatewayError)
          expect(['request_malformed', 'path_ambiguous']).toContain((cause as GatewayError).code)
          return
        }
        const text = textOf(outbound)
        expect(text.split(OURS)).toHaveLength(2)
        const { headers, body } = outbound
        if (Buffer.isBuffer(body)) {
          const at = headers.findIndex((name) => name.toLowerCase() === 'content-length')
          if (at !== -1) expect(headers[at + 1]).toBe(String(body.length))
        }
        expect(leftInHead(outbound, one.slots)).toEqual([])
        const names = one.slots.flatMap((s) => (s.in === 'body' ? [s.pointer] : s.in === 'form' ? [`/${s.name}`] : []))
        if (Buffer.isBuffer(body) && names.length > 0) expect(leftIn(body.toString(), names)).toEqual([])
      }),
      { numRuns: 600 },
    )
  })
})

/** What a reader that ignores case and brackets still finds of the agent's. */
function leftIn(body: string, names: readonly string[]): string[] {
  if (body.startsWith('{')) {
    const json = JSON.parse(body.toLowerCase()) as Record<string, unknown>
    return names.filter((name) => {
      const value = name
        .slice(1)
        .split('/')
        .reduce<unknown>((at, key) => (at as Record<string, unknown> | undefined)?.[key], json)
      return value !== undefined && value !== OURS
    })
  }
  const found = body.split(/[&;]/).map((field) => new URLSearchParams(field).entries().next().value ?? ['', ''])
  const folded = (name = '') => name.toLowerCase().trim().split('\0')[0]?.split('[')[0]
  return names.filter((name) => found.some(([key, value]) => `/${folded(key)}` === name && value !== OURS))
}

test('a service without slots in bodies is not read, so that uploads stream', () => {
  const service = { slots: [{ in: 'header', name: 'x' }] } as unknown as Service
  expect(needsContent(service, { mode: 'forward' })).toBe(false)
})
