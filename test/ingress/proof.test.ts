/** What a DPoP proof has to be about, at every shape that a request can have. */
import { afterEach, describe, expect, it } from 'vitest'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { HANDLE, type OpenDoor, openDoor } from './door.fixture.ts'
import { openWire } from './wire.fixture.ts'

let door: OpenDoor
afterEach(() => door.close())

/** What the room of identities was asked to verify. */
const asked: { dpop: string; method: string; url: string; accessToken?: string }[] = []

function open(url?: string): Promise<OpenDoor> {
  asked.length = 0
  return openDoor({
    ...(url !== undefined && { url }),
    proofs: {
      async proof(dpop, request) {
        asked.push({ dpop, ...request })
        if (dpop !== 'good') throw new GatewayError('dpop_invalid', 'not this one')
        return { jkt: 'thumb' }
      },
      nonce: () => 'n1',
    },
  })
}

async function send(line: string, ...fields: string[]) {
  const wire = await openWire(door.port)
  wire.write(`${line} HTTP/1.1\r\n${fields.map((field) => `${field}\r\n`).join('')}\r\n`)
  const answer = await wire.answer()
  wire.destroy()
  return answer
}

describe('a proof on a reverse route', () => {
  it.each<[string | undefined, string, string]>([
    [undefined, '/github/user', 'OWN/github/user'],
    ['https://proxy.acme.test', '/github/user?page=2', 'https://proxy.acme.test/github/user?page=2'],
    ['https://acme.test/agents', '/github', 'https://acme.test/agents/github'],
    ['https://acme.test/agents', '/anthropic/v1/a%2Fb', 'https://acme.test/agents/anthropic/v1/a%2Fb'],
  ])('is about the URL of settings and the path as sent: %s, %s', async (url, path, expected) => {
    door = await open(url)
    const { status } = await send(`GET ${path}`, 'Host: evil.test', `Authorization: DPoP ${HANDLE}`, 'DPoP: good')
    expect(status).toBe(200)
    const own = expected.replace('OWN', `http://127.0.0.1:${door.port}`)
    expect(asked).toEqual([{ dpop: 'good', method: 'GET', url: own, accessToken: HANDLE }])
    expect(door.calls.at(-1)).toMatchObject({ presented: { scheme: 'dpop' }, proof: { jkt: 'thumb' } })
  })

  it('goes before whatever an SDK put into the slot of the service', async () => {
    door = await open()
    const fields = ['Host: x', 'X-Api-Key: placeholder', `authorization: dpop ${HANDLE}`, 'dpop: good']
    expect((await send('POST /anthropic/v1/messages', ...fields, 'Content-Length: 0')).status).toBe(200)
    expect(asked).toMatchObject([{ method: 'POST', accessToken: HANDLE }])
  })
})

describe('a proof in absolute form', () => {
  it.each([
    ['http://api.github.test/user', 'http://api.github.test/user'],
    ['https://API.github.test:443/user?a=b', 'https://api.github.test/user?a=b'],
    ['https://api.github.test:8443/', 'https://api.github.test:8443/'],
    ['http://[0:0:0:0:0:0:0:1]:81/x', 'http://[::1]:81/x'],
  ])('is about the place that the request goes to: %s', async (target, url) => {
    door = await open('https://proxy.acme.test')
    const host = `Host: ${new URL(target).host}`
    await send(`GET ${target}`, host, `Proxy-Authorization: DPoP ${HANDLE}`, 'DPoP: good')
    expect(asked).toMatchObject([{ url, accessToken: HANDLE }])
  })
})

describe('a proof', () => {
  it('is not asked for where nothing is presented as DPoP', async () => {
    door = await open()
    const fields = ['Host: x', `Authorization: Bearer ${HANDLE}`, 'DPoP: other', 'DPoP: another']
    const { status, headers } = await send('GET /github/user', ...fields)
    expect(status).toBe(200)
    expect(asked).toEqual([])
    expect(headers.has('dpop-nonce')).toBe(false)
    expect(door.calls.at(-1)?.proof).toBeUndefined()
  })

  it('that is refused is recorded, and answered with a challenge and a nonce', async () => {
    door = await open()
    const { status, headers } = await send('GET /github/user', 'Host: x', `Authorization: DPoP ${HANDLE}`, 'DPoP: bad')
    expect(status).toBe(401)
    expect(headers.get('www-authenticate')).toMatch(/^DPoP realm="keyless", error="invalid_dpop_proof", algs="/)
    expect(headers.get('dpop-nonce')).toBe('n1')
    expect(door.refused.at(-1)).toMatchObject({ code: 'dpop_invalid' })
  })

  it('is there once, or the grant does not count', async () => {
    door = await open()
    for (const fields of [[], ['DPoP: good', 'DPoP: good'], ['DPoP: good', 'dpop: ']]) {
      const own = ['Host: x', `Proxy-Authorization: DPoP ${HANDLE}`, ...fields]
      expect((await send('GET /github/user', ...own)).status, fields.join()).toBe(401)
    }
    expect(asked).toEqual([])
  })

  it('counts for no tunnel', async () => {
    door = await open()
    const own = ['Host: api.github.test:443', `Proxy-Authorization: DPoP ${HANDLE}`, 'DPoP: good']
    const { status, headers } = await send('CONNECT api.github.test:443', ...own)
    expect(status).toBe(407)
    expect(headers.get('proxy-authenticate')).toMatch(/^Basic/)
    expect(asked).toEqual([])
    expect(door.refused.at(-1)).toMatchObject({ code: 'dpop_invalid' })
  })

  it('counts for nobody at a door that cannot verify any', async () => {
    door = await openDoor()
    const { status } = await send('GET /github/user', 'Host: x', `Authorization: DPoP ${HANDLE}`, 'DPoP: good')
    expect(status).toBe(401)
  })
})
