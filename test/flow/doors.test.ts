/** One request, three shapes of proxy, one flow: the API gets a credential that the agent never sees. */
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { run } from '../rig/process.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

let upstream: TestUpstream
let gateway: TestGateway
let task: OpenedTask
let caFile: string

beforeAll(async () => {
  upstream = await startUpstream()
  gateway = await startGateway(await upstream.settings())
  task = await gateway.openTask('demo:*', 'walk through every door')
  caFile = `${gateway.settings.keysDir}/ca.pem`
})

afterAll(async () => {
  await gateway.stop()
  await upstream.stop()
})

const proxy = (credential: string) => `http://${credential}@127.0.0.1:${gateway.proxyPort}`
const curl = (...args: string[]) => run('curl', ['-sS', '--cacert', caFile, ...args])

describe('the intercepted door', () => {
  it('reaches an OAuth-protected API with a credential that the agent never sees', async () => {
    const answer = await curl('-x', proxy(`task:${task.handle}`), `${upstream.facts.api}/echo`)
    const echoed = JSON.parse(answer.stdout)
    expect(JSON.stringify(echoed)).toContain('Bearer ***')
    expect(answer.stdout).not.toContain('eyJ')
    expect(upstream.counts.get('GET /echo')).toBe(1)
  })

  it('takes a signed grant where a handle is not wanted, as Basic and as Bearer', async () => {
    const basic = await curl(
      '-w',
      '%{http_code}',
      '-o',
      '/dev/null',
      '-x',
      proxy(`agent:${task.token}`),
      `${upstream.facts.api}/notes`,
    )
    expect(basic.stdout).toBe('200')
    const bearer = await curl(
      '-w',
      '%{http_code}',
      '-o',
      '/dev/null',
      '-x',
      `http://127.0.0.1:${gateway.proxyPort}`,
      '--proxy-header',
      `Proxy-Authorization: Bearer ${task.token}`,
      `${upstream.facts.api}/notes`,
    )
    expect(bearer.stdout).toBe('200')
  })

  it('decides every request inside the tunnel by itself', async () => {
    const narrow = await gateway.openTask('demo:notes.list', 'list only')
    const answer = await curl(
      '-x',
      proxy(`task:${narrow.handle}`),
      '-w',
      '%{http_code} ',
      '-o',
      '/dev/null',
      `${upstream.facts.api}/notes`,
      '-o',
      '/dev/null',
      `${upstream.facts.api}/echo`,
    )
    expect(answer.stdout).toBe('200 403 ')
  })
})

describe('the forward door', () => {
  it('takes absolute-form https, as old axios sends it', async () => {
    const head = `GET ${upstream.facts.api}/notes HTTP/1.1\r\nHost: ${new URL(upstream.facts.api).host}\r\nProxy-Authorization: Basic ${Buffer.from(`task:${task.handle}`).toString('base64')}\r\nConnection: close\r\n\r\n`
    expect(await exchange(head)).toMatch(/^HTTP\/1\.1 200 /)
  })

  it('answers a missing grant with 407 on a connection that stays open for the one who has it', async () => {
    const request = `GET ${upstream.facts.api}/notes HTTP/1.1\r\nHost: ${new URL(upstream.facts.api).host}\r\n`
    const socket = connect(gateway.proxyPort, '127.0.0.1')
    let received = ''
    const answered = Promise.withResolvers<void>()
    socket.on('data', (chunk) => {
      received += chunk.toString('latin1')
      if (received.includes('200 OK')) answered.resolve()
      else if (received.includes('"instance"') && !received.includes('sent again')) {
        received += 'sent again'
        socket.write(
          `${request}Proxy-Authorization: Basic ${Buffer.from(`task:${task.handle}`).toString('base64')}\r\n\r\n`,
        )
      }
    })
    socket.on('close', () => answered.reject(new Error(`closed after: ${received}`)))
    socket.write(`${request}\r\n`)
    await answered.promise
    expect(received).toMatch(/^HTTP\/1\.1 407 [\s\S]*proxy-authenticate: Basic/i)
    socket.destroy()
  })
})

describe('the reverse door', () => {
  it('takes the grant from the slot where an SDK puts its key', async () => {
    const answer = await curl(
      '-H',
      `Authorization: Bearer ${task.handle}`,
      `http://127.0.0.1:${gateway.proxyPort}/demo/echo?a=%2Fb`,
    )
    const echoed = JSON.parse(answer.stdout)
    expect(echoed.url).toBe('/echo?a=%2Fb')
    expect(answer.stdout).not.toContain(task.handle)
  })

  it('answers 401 with a challenge without one', async () => {
    const answer = await curl('-i', `http://127.0.0.1:${gateway.proxyPort}/demo/echo`)
    expect(answer.stdout).toMatch(/^HTTP\/1\.1 401 [\s\S]*www-authenticate:/i)
  })
})

describe('a request that names two places', () => {
  it('is refused inside the tunnel when Host and CONNECT target differ', async () => {
    const answer = await curl(
      '-i',
      '-x',
      proxy(`task:${task.handle}`),
      '-H',
      'Host: elsewhere.keyless.test',
      `${upstream.facts.api}/notes`,
    )
    expect(answer.stdout).toContain('421')
    expect(answer.stdout).toContain('target_mismatch')
  })
})

/** One raw exchange on a connection that the gateway closes. */
async function exchange(head: string): Promise<string> {
  const socket = connect(gateway.proxyPort, '127.0.0.1')
  socket.write(head)
  let received = ''
  for await (const chunk of socket) received += (chunk as Buffer).toString('latin1')
  return received
}
