/** What one agent can do to all others by the mere amount of what it sends (standards.md H21). */
import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { basic, reverse } from './agent.fixture.ts'
import { type ScriptedUpstream, startScripted } from './scripted.fixture.ts'
import { type OpenSite, openSite } from './services.fixture.ts'

let upstream: ScriptedUpstream
let site: OpenSite

beforeAll(async () => {
  upstream = await startScripted(['slow.keyless.test'])
  site = await openSite(upstream, {
    services: [{ name: 'slow', operations: { 'x.read': { match: ['GET /x'], access: 'read' } } }],
    credentials: { slow: 'a-standing-key-of-some-length' },
  })
})

afterAll(async () => {
  await site.stop()
  await upstream.stop()
})

it('a connection that never waits for answers is cut before it has taken a hundred sockets', async () => {
  const { handle } = await site.gateway.openTask('slow:*')
  const port = site.gateway.proxyPort
  upstream.act = () => {} // never answers
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {}).resume()
  socket.write(
    `GET /slow/x HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nProxy-Authorization: ${basic(handle)}\r\n\r\n`.repeat(400),
  )
  await once(socket, 'close')
  expect(upstream.received.length).toBeLessThan(100)
  upstream.act = (stream) => void stream.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
  expect((await reverse(port, handle, { path: '/slow/x' })).status).toBe(200)
})
