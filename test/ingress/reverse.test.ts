import { afterAll, beforeAll, expect, test } from 'vitest'
import { basic, type Echo, HANDLE, type OpenDoor, openDoor } from './door.fixture.ts'
import { openWire } from './wire.fixture.ts'

let door: OpenDoor
beforeAll(async () => {
  door = await openDoor()
})
afterAll(() => door.close())

async function ask(path: string, ...fields: string[]) {
  const wire = await openWire(door.port)
  wire.write(`GET ${path} HTTP/1.1\r\nHost: localhost:8080\r\n${fields.map((field) => `${field}\r\n`).join('')}\r\n`)
  const answer = await wire.answer()
  wire.destroy()
  return answer
}

test.each([
  ['/github/repos/a%2Fb//c?x=%26&', '/repos/a%2Fb//c?x=%26&'],
  ['/github/', '/'],
  ['/github', '/'],
  ['/github?page=2', '/?page=2'],
  ['/github//double', '//double'],
])('%s goes on as %s', async (path, rawPath) => {
  const { status, body } = await ask(path, `Authorization: Bearer ${HANDLE}`)
  expect(status).toBe(200)
  expect((JSON.parse(body) as Echo).url).toBe(rawPath)
  expect(door.calls.at(-1)).toMatchObject({
    mode: 'reverse',
    route: 'github',
    scheme: 'https',
    host: 'api.github.test',
    port: 443,
    rawPath,
    hostHeader: undefined,
    presented: { token: HANDLE, scheme: 'slot' },
  })
})

test.each([
  ['Bearer', '/openai/v1/models', `Authorization: Bearer ${HANDLE}`],
  ['Basic with any user', '/github/user', `Authorization: ${basic('x-access-token', HANDLE)}`],
  ["GitHub's token scheme", '/github/user', `Authorization: token ${HANDLE}`],
  ['x-api-key', '/anthropic/v1/messages', `X-Api-Key: ${HANDLE}`],
  ['Bearer where x-api-key is empty', '/anthropic/v1/messages', `Authorization: Bearer ${HANDLE}`],
  ['private-token', '/gitlab/api/v4/user', `PRIVATE-TOKEN: ${HANDLE}`],
  ['a key in the query', `/maps/geo?q=a&key=${HANDLE}`, 'X-Other: 1'],
  ['a cookie', '/shop/cart', `Cookie: a=1; session=${HANDLE}; b=2`],
  ['a subprotocol', '/chat/feed', `Sec-WebSocket-Protocol: v1, key.${HANDLE}`],
  ['Basic with the key as user name', '/stripe/v1/charges', `Authorization: ${basic(HANDLE, '')}`],
  [
    'Proxy-Authorization, before any slot',
    '/github/user',
    `Proxy-Authorization: Bearer ${HANDLE}\r\nAuthorization: Bearer placeholder`,
  ],
])('the agent is known by %s', async (_what, path, field) => {
  expect((await ask(path, field)).status).toBe(200)
})

test('a missing credential gets 401 with a challenge, and no proxy challenge', async () => {
  const answer = await ask('/gitlab/api/v4/user')
  expect(answer.status).toBe(401)
  expect(answer.headers.get('www-authenticate')).toBe('Basic realm="keyless", Bearer')
  expect(answer.headers.has('proxy-authenticate')).toBe(false)
  expect(JSON.parse(answer.body)).toMatchObject({ status: 401, code: 'grant_missing' })
})

test.each(['/', '/nowhere/x', '/Github/user', '//github/user', '/favicon.ico', '*'])('%s is no route', async (path) => {
  const answer = await ask(path, `Authorization: Bearer ${HANDLE}`)
  expect([400, 404]).toContain(answer.status)
})

test('Host is not compared in reverse mode: it names the gateway', async () => {
  const answer = await ask('/github/user', `Authorization: Bearer ${HANDLE}`)
  expect(answer.status).toBe(200)
})
