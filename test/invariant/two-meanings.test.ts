/**
 * Requests that could be read in two ways, so that one operation or credential is decided on and another one does its work: subresources
 * beside each other, two protocols in one request, forms that are read to tell the operation and hold a key of the agent's besides.
 */
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { newCanary } from '../rig/canary.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { type Answer, basic, codeOf, say } from './agent.fixture.ts'
import { type Operations, type Site, writeSite } from './services.fixture.ts'

const MINE = 'sk-agents-own-key-0815471108154711'
const key = newCanary()
const arrived: { readonly path: string; readonly headers: string; readonly body: string }[] = []
let site: Site
let gateway: TestGateway
let handle: string
let stop: () => Promise<void>

beforeAll(async () => {
  const tls = await throwAwayTls(['formed.keyless.test', 'filled.keyless.test', 'objects.keyless.test'])
  const server = createServer({ key: tls.key, cert: tls.cert }, async (request, response) => {
    const body = Buffer.concat(await request.toArray()).toString()
    arrived.push({ path: request.url ?? '', headers: JSON.stringify(request.headers), body })
    response.end('{}')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const told: Operations = { send: { match: ['POST /call with Action=Send'], access: 'write' } }
  const token = { in: 'form', name: 'token' } as const
  const header = { in: 'header', name: 'x-key' } as const
  site = await writeSite(
    { port: (server.address() as AddressInfo).port, caPem: tls.caPem },
    {
      services: [
        { name: 'formed', operations: told, slots: [header, token] },
        { name: 'filled', operations: told, slots: [token] },
        {
          name: 'objects',
          slots: [header],
          operations: {
            put: { match: ['PUT /{bucket}/{key}', 'PUT /{bucket}/{key}?part=*'], access: 'write' },
            share: { match: ['PUT /{bucket}/{key}?acl=*'], access: 'write' },
            copy: { match: ['PUT /{bucket}/{key} with X-Copy-Source:'], access: 'write' },
            send: { match: ['POST / with X-Target: Send'], access: 'write' },
            old: { match: ['POST / with Action=*'], access: 'write' },
          },
        },
      ],
      credentials: { formed: key, filled: key, objects: key },
    },
  )
  gateway = await startGateway(site.yaml)
  stop = async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
})

beforeEach(async () => {
  arrived.length = 0
  handle = (await gateway.openTask('formed:send filled:send objects:put objects:send')).handle
})

afterAll(async () => {
  await gateway?.stop()
  await site?.remove()
  await stop?.()
})

function send(target: string, body = '', ...fields: string[]): Promise<Answer> {
  const head = [`${target} HTTP/1.1`, `Host: 127.0.0.1:${gateway.proxyPort}`, `Proxy-Authorization: ${basic(handle)}`]
  const length = `Content-Length: ${body.length}`
  return say(gateway.proxyPort, [...head, ...fields, length, 'Connection: close', '', body].join('\r\n'))
}

const FORM = 'Content-Type: application/x-www-form-urlencoded'

it.each([
  ['formed', 'Action=Send&a=1'],
  ['filled', `Action=Send&a=1&${new URLSearchParams({ token: key })}`],
])('takes a key of the agent’s out of a form that says which operation it is: %s', async (service, expected) => {
  const answer = await send(`POST /${service}/call`, `token=${MINE}&Action=Send&to%6ben=${MINE}&a=1`, FORM)
  expect(answer.status).toBe(200)
  expect(arrived.map(({ body }) => body)).toEqual([expected])
})

it.each([
  ['a subresource beside one that is granted', ['PUT /objects/b/k?part=1&acl']],
  ['the same the other way round', ['PUT /objects/b/k?acl=x&part=1']],
  ['a field beside a subresource', ['PUT /objects/b/k?part=1', '', 'X-Copy-Source: /secret/k']],
  ['a form beside a field', ['POST /objects/', 'Action=Delete', 'X-Target: Send', FORM]],
] as const)('refuses %s: the upstream would choose what it does', async (_what, [target, body, ...fields]) => {
  expect(codeOf(await send(target, body, ...fields))).toBe('request_malformed')
  expect(arrived).toEqual([])
})

it('lets through what has one meaning only', async () => {
  for (const target of ['PUT /objects/b/k?part=1&other=2', 'PUT /objects/b/k?other=2'])
    expect((await send(target)).status).toBe(200)
  expect((await send('POST /objects/', '{}', 'X-Target: Send', 'Content-Type: application/json')).status).toBe(200)
  expect(arrived.length).toBe(3)
})
