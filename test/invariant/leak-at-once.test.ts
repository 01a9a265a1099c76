/** SECURITY.md 5: a credential that an upstream repeats is used by nobody any more from then on, however long the answer that repeated it goes on. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { RequestListener } from 'node:http'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { opened, said, shapes, startWebSockets, type WebSocketUpstream } from '../rig/websocket.ts'
import { type Answer, codeOf, reverse } from './agent.fixture.ts'
import { entriesOf, type OpenSite, openSite } from './services.fixture.ts'

let upstream: WebSocketUpstream
let site: OpenSite
let handle: string
let port: number

/** Tokens are minted at `/mint`; `/events` repeats what it was shown, in the head or in the first event, and stays open. */
const serve: RequestListener = (request, response) => {
  if (request.url === '/mint') {
    response.setHeader('content-type', 'application/json')
    response.end(JSON.stringify({ token: `ghs_${randomBytes(20).toString('hex')}` }))
  } else if (request.url?.startsWith('/events/')) {
    const seen = String(request.headers.authorization)
    response.writeHead(200, request.url.endsWith('head') ? { 'x-seen': seen } : {})
    response.write(request.url.endsWith('body') ? `data: ${seen}\n\n` : 'data: nothing\n\n')
  } else response.end('ok')
}

beforeAll(async () => {
  upstream = await startWebSockets(['chat.keyless.test'], serve)
  const operations = {
    mint: { match: ['GET /mint'], access: 'admin', returns_secret: true, captures: ['/token'] },
    use: { match: ['GET /events/{where}', 'GET /ok'], access: 'read' },
    socket: { match: ['GET /leak'], access: 'write', websocket: true },
  } as never
  site = await openSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [{ name: 'chat', operations }],
      credentials: { chat: 'a-standing-key-of-some-length' },
      policies: {
        text: '@id("mint") @owner("test") permit (principal, action == Action::"chat:mint", resource);',
      },
    },
  )
  port = site.gateway.proxyPort
  handle = (await site.gateway.openTask('chat:*')).handle
}, 60_000)

afterAll(async () => {
  await site?.stop()
  await upstream?.stop()
})

const ask = (path: string, token = ''): Promise<Answer> =>
  reverse(port, handle, { path: `/chat${path}`, fields: fieldsWith(token) })
const fieldsWith = (token: string) =>
  `Proxy-Authorization: Bearer ${handle}\r\n${token === '' ? '' : `Authorization: Bearer ${token}\r\n`}`

async function mint(): Promise<string> {
  const token = /"token":"(ghs_klp_[\w-]{43})"/.exec((await ask('/mint')).bytes.toString())?.[1] ?? ''
  expect((await ask('/ok', token)).status).toBe(200)
  return token
}

const isBurnt = (token: string) => expect.poll(async () => codeOf(await ask('/ok', token))).toBe('foreign_credential')

describe('while the answer that repeated it goes on, it is burnt', () => {
  it.each(['head', 'body'])('by an event stream, in its %s', async (where) => {
    const token = await mint()
    const socket = connect(port, '127.0.0.1')
    socket.write(`GET /chat/events/${where} HTTP/1.1\r\nHost: x\r\n${fieldsWith(token)}\r\n`)
    await once(socket, 'data')
    await isBurnt(token)
    expect(socket.destroyed || socket.readableEnded).toBe(false)
    socket.destroy()
  })

  it.each(['text', 'binary', 'text 3', 'ping', 'base64'])('by a WebSocket, in its %s', async (how) => {
    const token = await mint()
    const open = shapes['CONNECT and TLS'] as NonNullable<(typeof shapes)[string]>
    const authority = `chat.keyless.test:${upstream.tlsPort}`
    const ca = (await site.gateway.control.status()).ca_pem
    const headers = { authorization: `Bearer ${token}` }
    const ws = await open({ port, handle, authority, path: '/leak', ca, headers })
    expect((await opened(ws)).status).toBe(101)
    ws.send(how)
    await (how === 'ping' ? once(ws, 'ping') : said(ws))
    await isBurnt(token)
    expect(ws.readyState).toBe(ws.OPEN)
    ws.terminate()
  })

  it('and each is in the record once, when its call is over', async () => {
    const leaks = async () =>
      (await entriesOf(site.gateway.settings.dataDir)).filter(({ kind }) => kind === 'leak.detected')
    await expect.poll(async () => (await leaks()).length).toBe(7)
  })

  it('unless nothing of it came back', async () => {
    const token = await mint()
    const socket = connect(port, '127.0.0.1')
    socket.write(`GET /chat/events/nothing HTTP/1.1\r\nHost: x\r\n${fieldsWith(token)}\r\n`)
    await once(socket, 'data')
    expect((await ask('/ok', token)).status).toBe(200)
    socket.destroy()
  })
})
