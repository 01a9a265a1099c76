import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { startIdentityProvider } from '../rig/oidc.ts'
import {
  GATEWAY,
  type Issuer,
  LOOPBACK,
  NOW_S,
  openRoom,
  type Room,
  sign,
  signingKey,
  startIssuer,
} from './issuer.fixture.ts'

const DESKTOP = 'keyless-desktop'
const refusal = (why: string) => ({ code: 'subject_invalid', message: expect.stringMatching(why) })

it('that a real provider gives after a login says who the person is, and how it knew', async () => {
  const { issuer, jwksUri, clientId: audience, caPem, signIn, stop } = await startIdentityProvider()
  const row = { kind: 'human', issuer, audience, jwks: { uri: jwksUri }, addresses: LOOPBACK }
  const room = openRoom({ issuers: [row] }, [caPem], { clock: systemClock })
  try {
    const token = await signIn('ana')
    const { human, mayAct } = await room.identities.human({ token, type: 'id_token' })
    expect(human).toEqual({ iss: issuer, sub: 'ana', authTime: expect.any(Number), amr: ['pwd', 'otp'] })
    expect(Math.abs(Number(human.authTime) - Date.now() / 1000)).toBeLessThan(30)
    expect(mayAct).toBeUndefined()
    const workload = room.identities.workload({ token, type: 'id_token' })
    await expect(workload).rejects.toMatchObject({ code: 'actor_invalid' })
  } finally {
    await room.stop()
    await stop()
  }
})

describe('an ID token', () => {
  const key = signingKey('ES256')
  let issuer: Issuer
  const rooms: Room[] = []
  beforeAll(async () => {
    issuer = await startIssuer(key)
  })
  afterAll(async () => {
    for (const room of rooms) await room.stop()
    await issuer.stop()
  })

  const claims = (change: object = {}) => ({
    iss: issuer.url,
    sub: 'ana',
    aud: DESKTOP,
    iat: NOW_S,
    exp: NOW_S + 300,
    nonce: 'ignored',
    ...change,
  })
  async function read(change: object = {}, row: object = {}, header: Record<string, unknown> = {}) {
    const known = { kind: 'human', issuer: issuer.url, audience: [DESKTOP, 'keyless-cli'], addresses: LOOPBACK }
    const room = openRoom({ issuers: [{ ...known, jwks: { uri: issuer.jwksUri }, ...row }] }, [issuer.ca])
    rooms.push(room)
    return room.identities.human({ token: await sign(key, claims(change), header), type: 'id_token' })
  }

  it.each<[string, object]>([
    ['for one of several own clients', { aud: 'keyless-cli' }],
    ['for all of them, issued to one', { aud: [DESKTOP, 'keyless-cli'], azp: 'keyless-cli' }],
    ['that is marked as one', { typ: 'ID' }],
    ['with a chain of actors that nobody looks at', { act: { sub: 'spiffe://evil.test/root' } }],
  ])('%s is believed', async (_what, change) => {
    expect(await read(change)).toEqual({ human: { iss: issuer.url, sub: 'ana' } })
  })

  it.each<[string, object, string]>([
    ['for another client', { aud: 'other' }, 'its audience is "other"'],
    ['for an own client and another', { aud: [DESKTOP, 'other'], azp: DESKTOP }, 'its audience is "other"'],
    ['issued to another client', { azp: 'other' }, 'issued to the client "other"'],
    ['for several, issued to nobody', { aud: [DESKTOP, 'keyless-cli'] }, 'issued to the client nothing'],
    ['that is an access token by its claims', { typ: 'Bearer' }, 'its claim typ is "Bearer"'],
    ['of nobody', { sub: undefined }, 'its sub is not a text'],
    ['of a subject that is endless', { sub: 'x'.repeat(256) }, 'its sub is not a text'],
    ['of a subject with a line break', { sub: 'ana\nroot' }, 'its sub is not a text'],
    ['with a login in words', { auth_time: 'today' }, 'its auth_time'],
    ['with a method that is none', { amr: 'pwd' }, 'its amr'],
    ['with methods that are no texts', { amr: [{}] }, 'its amr'],
    ['with a class that is none', { acr: 3 }, 'its acr'],
    ['without an expiry', { exp: undefined }, 'never expires'],
    ['of yesterday', { iat: NOW_S - 86_400, exp: NOW_S - 86_100 }, 'it expired'],
    ['that lives ten hours', { exp: NOW_S + 36_000 }, 'longer than the 3600 s'],
    ['that is bound to a key', { cnf: { jkt: 'x' } }, 'bound to a key'],
  ])('%s is refused', async (_what, change, why) => {
    await expect(read(change)).rejects.toMatchObject(refusal(why))
  })

  it.each(['at+jwt', 'logout+jwt', 'dpop+jwt', 'secevent+jwt'])('of the type %s is another token', async (typ) => {
    await expect(read({}, {}, { typ })).rejects.toMatchObject(refusal('its type is'))
  })

  it('of a client that may ask for others is believed when settings say so', async () => {
    const row = { authorized_parties: ['app'] }
    expect(await read({ azp: 'app' }, row)).toMatchObject({ human: { sub: 'ana' } })
    await expect(read({ azp: DESKTOP }, row)).rejects.toMatchObject(refusal('issued to the client'))
  })

  it('names who may act, and settings can only narrow that', async () => {
    const agents = ['triage', 'search']
    expect(await read({ may_act: { sub: 'triage' } })).toMatchObject({ mayAct: ['triage'] })
    expect(await read({ may_act: { iss: GATEWAY, sub: 'triage' } })).toMatchObject({ mayAct: ['triage'] })
    expect(await read({}, { agents })).toMatchObject({ mayAct: agents })
    expect(await read({ may_act: { sub: 'search' } }, { agents })).toMatchObject({ mayAct: ['search'] })
    expect(await read({ may_act: { sub: 'other' } }, { agents })).toMatchObject({ mayAct: [] })
  })

  it.each<[string, unknown, string]>([
    ['is no object', 'triage', 'not an object'],
    ['is a list', [{ sub: 'triage' }], 'not an object'],
    ['names nobody', {}, 'its sub is not a text'],
    ['has a condition that is not understood', { sub: 'triage', client_id: 'x' }, 'its may_act has "client_id"'],
    ['is about actors of somebody else', { iss: 'https://other.test', sub: 'triage' }, 'about an actor of'],
  ])('whose may_act %s is refused', async (_what, may_act, why) => {
    await expect(read({ may_act })).rejects.toMatchObject(refusal(why))
  })

  it('of an issuer that speaks for workloads alone is no person’s', async () => {
    const room = openRoom({ issuers: [{ ...workloadRow(), issuer: issuer.url }] }, [issuer.ca])
    rooms.push(room)
    const presented = { token: await sign(key, claims()), type: 'id_token' } as const
    await expect(room.identities.human(presented)).rejects.toMatchObject(refusal('no issuer'))
    await expect(room.identities.human({ ...presented, type: 'access_token' })).rejects.toMatchObject(
      refusal('id_token'),
    )
  })

  const workloadRow = () => ({
    kind: 'oidc',
    audience: DESKTOP,
    jwks: { uri: issuer.jwksUri },
    addresses: LOOPBACK,
    agents: [{ match: { sub: 'ana' }, agent: 'triage' }],
  })
})
