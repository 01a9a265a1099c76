/** What is good once is good once at all replicas together: two rooms, one Redis, the store that grants are in. */
import { createSecretKey } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openRedisStore } from '../../gateway/grant/store/redis.ts'
import { systemClock } from '../../gateway/protocol/clock.ts'
import type { Identities } from '../../gateway/protocol/identity.ts'
import { startRedis, type TestRedis } from '../rig/redis.ts'
import { GATEWAY, NOW_S, openRoom, type Room, type SigningKey, sign, signingKey } from './issuer.fixture.ts'

const key = signingKey('ES256')
const nonceKey = createSecretKey(Buffer.alloc(32, 7))

let redis: TestRedis
let dir: string
let rooms: readonly [Room, Room]
const connections: Redis[] = []
beforeAll(async () => {
  redis = await startRedis()
  dir = await mkdtemp(join(tmpdir(), 'kl-replay-'))
  await writeFile(join(dir, 'client.pem'), key.publicKey.export({ type: 'spki', format: 'pem' }))
})
afterAll(async () => {
  await rm(dir, { recursive: true })
  await redis.stop()
})
beforeEach(() => {
  rooms = [replica(), replica()]
})
afterEach(async () => {
  for (const room of rooms) await room.stop()
  for (const connection of connections.splice(0)) connection.disconnect()
})

function replica(): Room {
  const connection = new Redis(redis.url, { maxRetriesPerRequest: 0 })
  connection.on('error', () => {})
  connections.push(connection)
  const store = openRedisStore({ redis: connection, prefix: redis.prefix, clock: systemClock })
  const once = async (name: string) => store.once('acme', name, Date.now() + 60_000)
  return openRoom({ clients: [{ id: 'bot', key: { file: join(dir, 'client.pem') } }] }, [], { nonceKey, once })
}

let counter = 0
const proofBy = (by: SigningKey, jti = `proof-${counter++}`) =>
  sign(
    by,
    { jti, htm: 'POST', htu: GATEWAY, iat: NOW_S, nonce: rooms[1].identities.nonce() },
    { typ: 'dpop+jwt', kid: undefined, jwk: by.publicKey.export({ format: 'jwk' }) },
  )
const assertion = () =>
  sign(key, { iss: 'bot', sub: 'bot', aud: GATEWAY, jti: `assertion-${counter++}`, iat: NOW_S, exp: NOW_S + 60 })

type Present = (room: Room, token: string) => Promise<unknown>
const prove: Present = ({ identities }, proof) => identities.proof(proof, { method: 'POST', url: GATEWAY })
const authenticate: Present = ({ identities }: { identities: Identities }, token) =>
  identities.client({ assertion: { type: 'jwt-bearer', token } })

describe.each<[string, () => Promise<string>, Present, string]>([
  ['a DPoP proof', () => proofBy(key), prove, 'dpop_invalid'],
  ['a client assertion', assertion, authenticate, 'client_invalid'],
])('%s', (_what, mint, present, code) => {
  it('comes through once of many times at once, at two replicas', async () => {
    const token = await mint()
    const tries = [0, 1, 0, 1, 0, 1].map((at) => present(rooms[at] as Room, token))
    const settled = await Promise.allSettled(tries)
    expect(settled.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    for (const each of settled)
      if (each.status === 'rejected')
        expect(each.reason).toMatchObject({ code, message: expect.stringMatching('was used before') })
    await expect(present(rooms[1], await mint())).resolves.toBeDefined()
  })

  it('cannot be told from a replay while Redis is away, and is refused', async () => {
    const token = await mint()
    connections[0]?.disconnect()
    await expect(present(rooms[0], token)).rejects.toMatchObject({ code: 'store_unavailable' })
  })
})

it('is no replay when another key chose the same jti', async () => {
  await prove(rooms[0], await proofBy(key, 'same'))
  await expect(prove(rooms[1], await proofBy(signingKey('ES256'), 'same'))).resolves.toHaveProperty('jkt')
  await expect(prove(rooms[1], await proofBy(key, 'same'))).rejects.toMatchObject({ code: 'dpop_invalid' })
})
