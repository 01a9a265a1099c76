/** The unix socket: who may open it, and what stands in its way. */

import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { controlClient } from '../../gateway/cli/control-client.ts'
import { clearSocketPath, listenOnSocket } from '../../gateway/control/socket.ts'
import { openRig } from './door.fixture.ts'

let dir: string
let path: string
const servers: Server[] = []
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'ks-'))
  path = join(dir, 'run', 'control.sock')
})
afterEach(() => {
  for (const server of servers.splice(0)) server.close()
  rmSync(dir, { recursive: true, force: true })
})
const listen = async () => {
  const server = createServer((_request, response) => response.end('x'))
  servers.push(server)
  await clearSocketPath(path)
  await listenOnSocket(server, path)
}

describe('the control socket', () => {
  it('is 0600 in a directory 0700 of its own, also under a wide umask, which it leaves as it was', async () => {
    const before = process.umask(0)
    try {
      await listen()
      expect(statSync(path).mode & 0o777).toBe(0o600)
      expect(statSync(join(dir, 'run')).mode & 0o777).toBe(0o700)
      expect(process.umask()).toBe(0)
    } finally {
      process.umask(before)
    }
  })

  it('that a killed process left behind is replaced', async () => {
    mkdirSync(join(dir, 'run'))
    const killed = spawnSync(process.execPath, [
      '-e',
      `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`,
    ])
    expect(killed.signal).toBe('SIGKILL')
    expect(existsSync(path)).toBe(true)
    await listen()
    await expect(controlClient(path).tasks()).rejects.toThrow(/not this gateway/)
  })

  it('that a running gateway answers is left alone, with a clear word', async () => {
    const rig = await openRig({ socketPath: path })
    await expect(openRig({ socketPath: path })).rejects.toThrow(/already running here.*KEYLESS_HOME/)
    expect(await rig.client.tasks()).toEqual([])
    await rig.close()
  })

  it('never replaces a file, a directory or a link to either', async () => {
    mkdirSync(join(dir, 'run'))
    writeFileSync(path, 'precious')
    await expect(clearSocketPath(path)).rejects.toThrow(/not a socket/)
    rmSync(path)
    symlinkSync(join(dir, 'elsewhere'), path)
    await expect(clearSocketPath(path)).rejects.toThrow(/not a socket/)
    rmSync(path)
    mkdirSync(path)
    await expect(clearSocketPath(path)).rejects.toThrow(/not a socket/)
  })

  it('is not put where everyone could replace it', async () => {
    mkdirSync(join(dir, 'run'))
    chmodSync(join(dir, 'run'), 0o777)
    await expect(clearSocketPath(path)).rejects.toThrow(/Everyone may write.*listen\.control_socket/)
    chmodSync(join(dir, 'run'), 0o1777) // like /tmp: others cannot remove it
    await expect(clearSocketPath(path)).resolves.toBeUndefined()
  })
})
