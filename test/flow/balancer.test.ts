/** The door behind haproxy, which passes TCP on and says whose connection it is. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, expect, it } from 'vitest'
import { HANDLE, type OpenDoor, openDoor } from '../ingress/door.fixture.ts'
import { freePort, untilListening } from '../rig/ports.ts'
import { type Running, run, start } from '../rig/process.ts'

const BALANCER = '127.0.0.9'
const CLIENT = '127.0.0.5'

const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

async function balanced(send: 'send-proxy' | 'send-proxy-v2' | ''): Promise<{ door: OpenDoor; port: number }> {
  const door = await openDoor({ announcedBy: [`${BALANCER}/32`] })
  const dir = mkdtempSync(join(tmpdir(), 'kl-balancer-'))
  const port = await freePort()
  closing.push(
    () => door.close(),
    () => rmSync(dir, { recursive: true }),
  )
  const conf = `
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen door
  bind 127.0.0.1:${port}
  source ${BALANCER}
  server one 127.0.0.1:${door.port} ${send}
`
  writeFileSync(join(dir, 'haproxy.cfg'), conf)
  const haproxy: Running = start('haproxy', ['-db', '-f', join(dir, 'haproxy.cfg')], {
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
  })
  closing.push(() => haproxy.stop())
  await untilListening(port)
  return { door, port }
}

it.each(['send-proxy', 'send-proxy-v2'] as const)(
  'haproxy with %s announces the client, in tunnels too',
  async (send) => {
    const { door, port } = await balanced(send)
    const shape = ['-sS', '-o', '/dev/null', '-w', '%{http_code}']
    const args = [
      ...shape,
      '--interface',
      CLIENT,
      '--cacert',
      door.caFile,
      '-x',
      `http://task:${HANDLE}@127.0.0.1:${port}`,
    ]
    for (const url of ['http://shop.test/x', 'https://api.github.test/user']) {
      expect((await run('curl', [...args, url])).stdout).toBe('200')
      expect(door.calls.at(-1)?.client.address).toBe(CLIENT)
    }
  },
)

it('haproxy that announces nobody is told to', async () => {
  const { door, port } = await balanced('')
  const { stdout } = await run('curl', ['-sS', '-x', `http://task:${HANDLE}@127.0.0.1:${port}`, 'http://shop.test/x'])
  expect(stdout).toContain('has to send a PROXY protocol header first')
  expect(door.calls).toEqual([])
})
