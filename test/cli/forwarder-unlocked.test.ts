/** The forwarder's port without a password: what it is for, and whose processes it serves. */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type Forwarder, openForwarder } from '../../gateway/cli/run/forwarder.ts'
import { isOwnPeer } from '../../gateway/cli/run/forwarder-peer.ts'
import { run } from '../rig/process.ts'
import { type FixtureGateway, GRANT, startFixtureGateway } from './gateway.fixture.ts'

let gateway: FixtureGateway
let forwarder: Forwarder
let port: number

beforeEach(async () => {
  gateway = await startFixtureGateway()
  forwarder = await openForwarder({ gateway: { host: '127.0.0.1', port: gateway.port }, authorization: GRANT })
  port = await forwarder.openUnlocked(false)
})
afterEach(async () => {
  vi.restoreAllMocks()
  await forwarder.close()
  await gateway.close()
})

const curl = (...args: string[]) =>
  run('curl', ['-sS', '-k', '--max-time', '5', '-x', `http://127.0.0.1:${port}`, ...args])

describe('the port without a password', () => {
  it('adds the grant for a client that has no credentials, on requests and tunnels', async () => {
    for (const url of ['http://api.demo.test/a', 'https://api.demo.test/b']) expect((await curl(url)).code).toBe(0)
    expect(gateway.seen.map(({ via, proxyAuthorization }) => [via, proxyAuthorization])).toEqual([
      ['absolute', GRANT],
      ['connect', GRANT],
      ['tunnel', undefined],
    ])
  })

  it('reads nothing of a process of another user', async () => {
    vi.spyOn(process, 'geteuid').mockReturnValue((process.geteuid?.() ?? 0) + 1)
    for (const url of ['http://api.demo.test/a', 'https://api.demo.test/b']) expect((await curl(url)).code).not.toBe(0)
    expect(gateway.seen).toEqual([])
    vi.restoreAllMocks()
    expect((await curl('http://api.demo.test/a')).code).toBe(0)
  })

  // Only root can become somebody else; the test above says the same with the roles exchanged.
  it.runIf(process.getuid?.() === 0)('cuts a real process of another user', () => {
    const script = `require('net').connect(${port}, '127.0.0.1').on('error', () => {}).on('data', (d) => process.stdout.write(d)).on('close', () => process.stdout.write('cut')).write('GET http://api.demo.test/ HTTP/1.1\\r\\nHost: api.demo.test\\r\\n\\r\\n')`
    // Not in this process: it has to go on serving.
    const nobody = `const { spawn } = require('child_process'); spawn(process.execPath, ['-e', process.argv[1]], { uid: 65534, gid: 65534, stdio: 'inherit', cwd: '/' }).on('exit', () => process.exit())`
    return run(process.execPath, ['-e', nobody, script], { cwd: '/' }).then(({ stdout, stderr }) => {
      if (stderr.includes('EACCES')) return // this Node lies where nobody else may run it
      expect(stdout).toBe('cut')
      expect(gateway.seen).toEqual([])
    })
  })

  it('is no page’s to use: what is not a proxy request is refused', async () => {
    const { stdout } = await run('curl', [
      '-sS',
      '-o',
      '/dev/null',
      '-w',
      '%{http_code}',
      `http://127.0.0.1:${port}/notes`,
    ])
    expect(stdout).toBe('400')
    expect(gateway.seen).toEqual([])
  })

  it('is gone with the forwarder', async () => {
    await forwarder.close()
    expect(spawnSync('curl', ['-sS', '-x', `http://127.0.0.1:${port}`, 'http://api.demo.test/']).status).toBe(7)
  })
})

describe('whose a connection is', () => {
  let server: Server
  let pair: readonly [Socket, Socket]

  const open = async (host: string) => {
    server = createServer()
    await new Promise<void>((resolve) => server.listen(0, host === '127.0.0.1' ? host : '::', resolve))
    const { port: at } = server.address() as { port: number }
    const accepted = once(server, 'connection')
    const client = connect(at, host)
    const [peer] = (await accepted) as [Socket]
    pair = [client, peer]
    return { client, peer }
  }
  afterEach(() => {
    for (const socket of pair) socket.destroy()
    server.close()
  })

  it('is known over both families of sockets', async () => {
    expect(isOwnPeer((await open('127.0.0.1')).peer)).toBe(true)
  })

  it('is nobody’s once the process at the other end has left it: not even root’s', async () => {
    const { client, peer } = await open('127.0.0.1')
    peer.resume()
    const ended = once(peer, 'end')
    client.destroy()
    await ended
    expect(isOwnPeer(peer)).toBe(false)
  })

  it('is nobody’s for ports that no connection has', () => {
    expect(isOwnPeer({ localPort: 1, remotePort: 2 })).toBe(false)
    pair = [] as never
  })
})
