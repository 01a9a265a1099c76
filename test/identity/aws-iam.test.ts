import fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { readCaller } from '../../gateway/identity/aws-answer.ts'
import { createAwsIam } from '../../gateway/identity/aws-iam.ts'
import { awsTrustSchema } from '../../gateway/identity/trust-aws.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'
import { answerAbout, BODY, type CallerToken, encode, type Keys, openSts, type Sts, signCaller } from './sts.fixture.ts'

const ISSUER = 'https://keyless.test'
const ACCOUNT = '123456789012'
const ROLE = `arn:aws:iam::${ACCOUNT}:role/triage`
const SESSION = 'i-0123456789abcdef0'
const PRINCIPAL = 'AROAEXAMPLEEXAMPLE12'
const KEYS: Keys = {
  accessKeyId: 'ASIAEXAMPLEEXAMPLE12',
  secretAccessKey: 'made-up/for+this',
  sessionToken: 'c2Vzc2lvbg==',
}
const ASSUMED = {
  arn: `arn:aws:sts::${ACCOUNT}:assumed-role/triage/${SESSION}`,
  userId: `${PRINCIPAL}:${SESSION}`,
  account: ACCOUNT,
}

let sts: Sts
let clock: ManualClock
let used: Set<string>

beforeAll(async () => {
  sts = await openSts()
})
afterAll(() => sts.close())
beforeEach(() => {
  clock = manualClock()
  used = new Set()
  sts.answer = undefined
  sts.seen.length = 0
  sts.callers.clear()
  sts.callers.set(KEYS.accessKeyId, { keys: KEYS, xml: answerAbout(ASSUMED) })
})

function room(change: object = {}, once = (name: string) => !used.has(name) && used.add(name) !== undefined) {
  const trust = awsTrustSchema.parse({ hosts: [sts.host], accounts: [ACCOUNT], addresses: ['127.0.0.0/8'], ...change })
  return createAwsIam({ trust, issuer: ISSUER, fetchFor: sts.fetchFor, once, clock })
}

const sign = (change: Partial<Parameters<typeof signCaller>[0]> = {}) =>
  signCaller({ keys: KEYS, host: sts.host, serverId: ISSUER, at: new Date(clock.nowMs()), ...change })

const refusal = (detail: string) =>
  expect.objectContaining({ code: 'actor_invalid', message: expect.stringContaining(detail) })

/** Refused, and STS never saw it. */
async function unsent(token: string, detail: string): Promise<void> {
  await expect(room().verify(token), detail).rejects.toEqual(refusal(detail))
  expect(sts.seen).toEqual([])
}

describe('a signed GetCallerIdentity', () => {
  it('is the role whose session signed it, as STS says', async () => {
    expect(await room().verify(encode(await sign()))).toEqual({
      id: ROLE,
      kind: 'aws-iam',
      issuer: ACCOUNT,
      instance: SESSION,
      attributes: { arn: ROLE, account: ACCOUNT, principal_id: PRINCIPAL },
      expiresAt: clock.nowMs() / 1000 + 300,
    })
    expect(sts.seen).toMatchObject([{ body: BODY, headers: { host: sts.host, 'x-keyless-server-id': ISSUER } }])
  })

  it('is one of 32 that STS is asked about at once, and the next has to come again', async () => {
    const held: (() => void)[] = []
    sts.answer = (response) => void held.push(() => response.writeHead(403).end())
    const aws = room()
    const token = encode(await sign())
    const waiting = Array.from({ length: 32 }, () => aws.verify(token))
    await expect(aws.verify(token)).rejects.toMatchObject({ code: 'too_many_requests' })
    await expect.poll(() => held.length).toBe(32)
    for (const answer of held) answer()
    expect((await Promise.allSettled(waiting)).every(({ status }) => status === 'rejected')).toBe(true)
    sts.answer = undefined
    expect(await aws.verify(token)).toMatchObject({ id: ROLE })
  })

  it('is a user, who has no session', async () => {
    const arn = `arn:aws:iam::${ACCOUNT}:user/ops/ana`
    const keys = { accessKeyId: 'AKIAEXAMPLEEXAMPLE12', secretAccessKey: 'made-up' }
    const xml = answerAbout({ arn, userId: 'AIDAEXAMPLEEXAMPLE12', account: ACCOUNT })
    sts.callers.set(keys.accessKeyId, { keys, xml })
    const workload = await room().verify(encode(await sign({ keys })))
    expect(workload).toMatchObject({ id: arn, attributes: { principal_id: 'AIDAEXAMPLEEXAMPLE12' } })
    expect(workload).not.toHaveProperty('instance')
  })

  it('is the agent that its row names, by the role’s own id where that is pinned', async () => {
    const agents = (match: object) => [{ match, agent: 'triage' }]
    const token = async () => encode(await sign({ more: { 'amz-sdk-request': `attempt=${used.size}` } }))
    expect((await room({ agents: agents({ arn: ROLE }) }).verify(await token())).id).toBe('triage')
    const pinned = room({ agents: agents({ arn: ROLE, principal_id: PRINCIPAL }) })
    expect((await pinned.verify(await token())).id).toBe('triage')
    for (const match of [{ arn: `${ROLE}2` }, { arn: ROLE, principal_id: 'AROAEXAMPLEEXAMPLE99' }])
      await expect(room({ agents: agents(match) }).verify(await token())).rejects.toEqual(refusal('no row'))
  })

  it('is used once, also when it is presented many times at once', async () => {
    const token = encode(await sign())
    const results = await Promise.allSettled(Array.from({ length: 5 }, () => room().verify(token)))
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    await expect(room().verify(token)).rejects.toEqual(refusal('used before'))
  })

  it('is refused when nobody can say whether it was used', async () => {
    const away = room({}, () => {
      throw new Error('connection lost')
    })
    await expect(away.verify(encode(await sign()))).rejects.toMatchObject({ code: 'store_unavailable' })
  })

  it('lives five minutes, and thirty seconds before it was signed', async () => {
    const token = async (seconds: number) =>
      encode(await sign({ at: new Date(clock.nowMs() + seconds * 1000), more: { 'amz-sdk-request': String(seconds) } }))
    for (const seconds of [-300, 0, 30]) expect((await room().verify(await token(seconds))).id).toBe(ROLE)
    sts.seen.length = 0
    await unsent(await token(-301), 'it was signed 301 s ago')
    await unsent(await token(31), 'it was signed 31 s from now')
  })
})

describe('is never sent on', () => {
  const changes: readonly (readonly [string, (token: CallerToken) => unknown, string])[] = [
    ['to a host that is not listed', (t) => ({ ...t, url: 'https://sts.evil.example/' }), 'its url'],
    [
      'to a listed host in another spelling',
      (t) => ({ ...t, url: t.url.replace('localhost', 'LOCALHOST') }),
      'its url',
    ],
    ['with a user in the URL', (t) => ({ ...t, url: t.url.replace('https://', 'https://x@') }), 'its url'],
    ['with a listed host as user', (t) => ({ ...t, url: `${t.url.slice(0, -1)}@sts.evil.example/` }), 'its url'],
    ['to another path', (t) => ({ ...t, url: `${t.url}latest` }), 'its url'],
    ['with a query', (t) => ({ ...t, url: `${t.url}?Action=AssumeRole` }), 'its url'],
    ['without TLS', (t) => ({ ...t, url: t.url.replace('https', 'http') }), 'its url'],
    ['by another method', (t) => ({ ...t, method: 'GET' }), 'member method'],
    ['with another action', (t) => ({ ...t, body: 'Action=GetSessionToken&Version=2011-06-15' }), 'member body'],
    ['with more in its body', (t) => ({ ...t, body: `${BODY}&X=1` }), 'member body'],
    ['with more members', (t) => ({ ...t, redirect: 'follow' }), 'its members'],
    ['with a list as header', (t) => ({ ...t, headers: { ...t.headers, host: [sts.host] } }), 'member headers'],
    [
      'with a line break in a header',
      (t) => ({ ...t, headers: { ...t.headers, host: 'a\r\nb: c' } }),
      'member headers',
    ],
    ['with a header in two spellings', (t) => ({ ...t, headers: { ...t.headers, Host: sts.host } }), 'there twice'],
    [
      'with another host header',
      (t) => ({ ...t, headers: { ...t.headers, host: 'sts.evil.example' } }),
      'its field host',
    ],
    [
      'with the server id exchanged',
      (t) => ({ ...t, headers: { ...t.headers, 'x-keyless-server-id': 'https://other.test' } }),
      'signed for',
    ],
    ['with another length', (t) => resigned(t, 'content-type', 'content-length', '44'), 'content-length'],
    ['without signature', (t) => ({ ...t, headers: { ...t.headers, authorization: '' } }), 'not an AWS4-HMAC-SHA256'],
    ['with a signature for another service', (t) => replaced(t, '/sts/', '/s3/'), 'not an AWS4-HMAC-SHA256'],
    ['with a signature of another day', (t) => replaced(t, '/20260601/', '/20260531/'), 'of the day'],
    [
      'with the server id unsigned',
      (t) => replaced(t, ';x-keyless-server-id', ''),
      'does not cover the field x-keyless-server-id',
    ],
    ['with the date unsigned', (t) => replaced(t, ';x-amz-date', ''), 'does not cover the field x-amz-date'],
    [
      'with the session token unsigned',
      (t) => replaced(t, ';x-amz-security-token', ''),
      'does not cover the field x-amz-security-token',
    ],
    [
      'with a signed field that is not there',
      (t) => replaced(t, 'content-type;', 'content-type;user-agent;'),
      'missing or not sent on',
    ],
    [
      'with a signed field that changes the answer',
      (t) => resigned(t, 'content-type', 'accept', 'application/json'),
      'missing or not sent on',
    ],
    ['with no time', (t) => ({ ...t, headers: { ...t.headers, 'x-amz-date': '20260601T250000Z' } }), 'is not a time'],
  ]
  const replaced = (t: CallerToken, from: string, to: string) => {
    expect(t.headers.authorization).toContain(from)
    return { ...t, headers: { ...t.headers, authorization: t.headers.authorization?.replace(from, to) } }
  }
  const resigned = (t: CallerToken, from: string, name: string, value: string) => {
    const { headers, ...rest } = replaced(t, from, name)
    return { ...rest, headers: { ...headers, [name]: value } }
  }
  it.each(changes)('%s', async (_what, change, detail) => unsent(encode(change(await sign())), detail))

  it('without server id, or with that of another relying party', async () => {
    await unsent(encode(await sign({ serverId: undefined })), 'does not cover the field x-keyless-server-id')
    await unsent(encode(await sign({ serverId: 'https://vault.acme.test' })), 'signed for "https://vault.acme.test"')
  })

  it('when it is no base64 of such JSON', async () => {
    for (const text of ['', 'not base64!', '[]', '{"method":"POST","method":"POST"}', 'null'])
      await expect(room().verify(text.startsWith('n') ? text : encode(text))).rejects.toMatchObject({
        code: 'actor_invalid',
      })
    await unsent('A'.repeat(17_000), 'longer than')
  })

  it('when AWS is not configured', async () => {
    const none = createAwsIam({ trust: undefined, issuer: ISSUER, fetchFor: sts.fetchFor, once: () => true, clock })
    await expect(none.verify(encode(await sign()))).rejects.toEqual(refusal('no AWS account is configured'))
  })

  it('whatever is presented: STS is asked by us in one form only', async () => {
    const json = JSON.stringify(await sign())
    await fc.assert(
      fc.asyncProperty(fc.nat(json.length - 1), fc.string({ maxLength: 3 }), async (at, text) => {
        const changed = json.slice(0, at) + text + json.slice(at + 1)
        await room()
          .verify(encode(changed))
          .catch((cause: unknown) => expect(cause).toBeInstanceOf(GatewayError))
      }),
      { numRuns: 300 },
    )
    for (const { body } of sts.seen) expect(body).toBe(BODY)
  })
})

describe('STS', () => {
  it('has the last word on the signature', async () => {
    const stolen = { ...KEYS, secretAccessKey: 'guessed' }
    await expect(room().verify(encode(await sign({ keys: stolen })))).rejects.toEqual(refusal('status 403'))
    const token = await sign()
    token.headers['x-amz-date'] = token.headers['x-amz-date']?.replace(/.Z$/, '7Z') ?? ''
    await expect(room().verify(encode(token))).rejects.toEqual(refusal('status 403'))
  })

  it('of another account is not believed', async () => {
    await expect(room({ accounts: ['999999999999'] }).verify(encode(await sign()))).rejects.toEqual(
      refusal('not one of'),
    )
  })

  it('that redirects is not followed', async () => {
    sts.answer = (response) => response.writeHead(307, { location: `https://${sts.host}/elsewhere` }).end()
    await expect(room().verify(encode(await sign()))).rejects.toEqual(refusal('status 307'))
    expect(sts.seen).toHaveLength(1)
  })

  it('that is out of order lets the same request be sent again', async () => {
    const token = encode(await sign())
    sts.answer = (response) => response.writeHead(503).end('slow down')
    await expect(room().verify(token)).rejects.toMatchObject({ code: 'upstream_broken' })
    sts.answer = undefined
    expect((await room().verify(token)).id).toBe(ROLE)
  })

  it('that answers without end is cut off', async () => {
    sts.answer = (response) => {
      response.writeHead(200)
      const pour = (): void => {
        while (!response.destroyed && response.write('x'.repeat(65_536)));
        if (!response.destroyed) response.once('drain', pour)
      }
      pour()
    }
    await expect(room().verify(encode(await sign()))).rejects.toMatchObject({ code: 'upstream_broken' })
  })

  it('is dialled only where its addresses are allowed', async () => {
    await expect(room({ addresses: [] }).verify(encode(await sign()))).rejects.toMatchObject({
      code: 'address_forbidden',
    })
    expect(sts.seen).toEqual([])
  })
})

describe('the answer of STS', () => {
  const refuse = (why: string) => new GatewayError('actor_invalid', why)
  const good = answerAbout(ASSUMED)

  it('is read with or without prolog and white space', () => {
    const dense = good.replaceAll(/>\s+</g, '><').trim()
    for (const xml of [good, dense, `<?xml version="1.0" encoding="UTF-8"?>\n${good}`])
      expect(readCaller(xml, refuse)).toEqual({ arn: ROLE, account: ACCOUNT, principalId: PRINCIPAL, session: SESSION })
  })

  it('in other partitions is of those', () => {
    const xml = answerAbout({ ...ASSUMED, arn: ASSUMED.arn.replace('arn:aws:', 'arn:aws-us-gov:') })
    expect(readCaller(xml, refuse).arn).toBe(ROLE.replace('arn:aws:', 'arn:aws-us-gov:'))
  })

  const broken: readonly (readonly [string, string])[] = [
    ['an entity', good.replace('triage', '&#116;riage')],
    ['a document type', `<!DOCTYPE x [<!ENTITY a "b">]>${good}`],
    ['a comment that splits a value', good.replace('triage', 'tri<!-- -->age')],
    ['CDATA', good.replace('triage', '<![CDATA[triage]]>')],
    ['another namespace', good.replace('2011-06-15', '2011-06-16')],
    ['no namespace', good.replace(/ xmlns="[^"]*"/, '')],
    ['a second Arn', good.replace('</Arn>', `</Arn><Arn>${ASSUMED.arn}</Arn>`)],
    [
      'a second result',
      good.replace('<ResponseMetadata>', '<GetCallerIdentityResult></GetCallerIdentityResult><ResponseMetadata>'),
    ],
    ['an element inside the Arn', good.replace(ASSUMED.arn, `<b>${ASSUMED.arn}</b>`)],
    ['an attribute', good.replace('<Arn>', '<Arn a="b">')],
    ['text between elements', good.replace('<Arn>', 'x<Arn>')],
    ['something after the end', `${good}<x/>`],
    ['no Account', good.replace(/<Account>.*<\/Account>/, '')],
    ['an Account that is not the ARN’s', good.replace(`<Account>${ACCOUNT}`, '<Account>999999999999')],
    ['a session that is not the UserId’s', good.replace(`:${SESSION}<`, ':other<')],
    ['JSON', JSON.stringify({ GetCallerIdentityResponse: ASSUMED })],
    ['more than 16 KiB', good + ' '.repeat(16_384)],
    ['nothing', ''],
    ['the root user', answerAbout({ arn: `arn:aws:iam::${ACCOUNT}:root`, userId: ACCOUNT, account: ACCOUNT })],
    [
      'a federated user',
      answerAbout({ arn: `arn:aws:sts::${ACCOUNT}:federated-user/x`, userId: `${ACCOUNT}:x`, account: ACCOUNT }),
    ],
    ['a role that stands where a user should', answerAbout({ ...ASSUMED, arn: ASSUMED.arn.replace(':sts:', ':iam:') })],
    ['a session of several parts', answerAbout({ ...ASSUMED, arn: `${ASSUMED.arn}/x` })],
  ]
  it.each(broken)('with %s is refused', (_what, xml) => {
    expect(() => readCaller(xml, refuse)).toThrow(GatewayError)
  })

  it('of any kind is read or refused, never thrown over', () => {
    fc.assert(
      fc.property(fc.nat(good.length), fc.string({ maxLength: 8 }), fc.nat(20), (at, text, cut) => {
        try {
          readCaller(good.slice(0, at) + text + good.slice(at + cut), refuse)
        } catch (cause) {
          expect(cause).toBeInstanceOf(GatewayError)
        }
      }),
      { numRuns: 2_000 },
    )
  })
})
