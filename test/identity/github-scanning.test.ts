/**
 * Messages of GitHub's secret scanning are believed by their signature alone. The vector is the one in GitHub's documentation ("Secret scanning
 * partner program"), which names its test key.
 */
import { createSign, generateKeyPairSync } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { createGithubKeys } from '../../gateway/identity/github-scanning.ts'

const ID = 'f9525bf080f75b3506ca1ead061add62b8633a346606dc5fe544e29231c6ee0d'
const PEM = `-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEsz9ugWDj5jK5ELBK42ynytbo38gP
HzZFI03Exwz8Lh/tCfL3YxwMdLjB+bMznsanlhK0RwcGP3IDb34kQDIo3Q==
-----END PUBLIC KEY-----`
const BODY = Buffer.from('[{"token":"some_token","type":"some_type","url":"some_url","source":"some_source"}]')
const SIGNATURE = 'MEUCIFLZzeK++IhS+y276SRk2Pe5LfDrfvTXu6iwKKcFGCrvAiEAhHN2kDOhy2I6eGkOFmxNkOJ+L2y8oQ9A2T9GGJo6WJY='
const url = 'https://api.github.test/keys'
const none = () => Promise.reject(new Error('nobody is asked'))

describe('a message of GitHub', () => {
  it('is believed by the signature of its body, and of nothing else', async () => {
    const isFrom = createGithubKeys({ keys: { [ID]: PEM }, url, fetch: none, clock: { elapsedMs: () => 0 } })
    expect(await isFrom(BODY, ID, SIGNATURE)).toBe(true)
    expect(await isFrom(Buffer.concat([BODY, Buffer.from(' ')]), ID, SIGNATURE)).toBe(false)
    expect(await isFrom(BODY, ID.replace('f', 'e'), SIGNATURE)).toBe(false)
    for (const bad of ['', 'AAAA', `${SIGNATURE} `, SIGNATURE.replace('=', ''), Buffer.alloc(64).toString('base64')])
      expect(await isFrom(BODY, ID, bad), bad).toBe(false)
  })

  it('is held against keys that GitHub publishes: fetched once, anew for an unknown one, once a minute at most', async () => {
    let asked = 0
    let nowMs = 0
    const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ type: 'spki', format: 'pem' })
    const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const mine = {
      key_identifier: 'b'.repeat(64),
      key: publicKey.export({ type: 'spki', format: 'pem' }),
      is_current: true,
    }
    const listed = [{ key_identifier: ID, key: PEM }, { key_identifier: 'rsa', key: rsa }, null, { key_identifier: 3 }]
    const fetch = async () => {
      asked += 1
      if (asked === 2) throw new Error('away')
      return Response.json({ public_keys: asked === 1 ? listed : [...listed, mine] })
    }
    const isFrom = createGithubKeys({ keys: undefined, url, fetch, clock: { elapsedMs: () => nowMs } })
    expect(await Promise.all([isFrom(BODY, ID, SIGNATURE), isFrom(BODY, ID, SIGNATURE)])).toEqual([true, true])
    expect(asked).toBe(1)
    const signature = createSign('sha256').update(BODY).sign(privateKey).toString('base64')
    for (let i = 0; i < 20; i++) expect(await isFrom(BODY, mine.key_identifier, signature)).toBe(false)
    expect(asked).toBe(1)
    nowMs = 60_000
    expect(await isFrom(BODY, mine.key_identifier, signature)).toBe(false)
    expect(await isFrom(BODY, ID, SIGNATURE), 'what is known counts while GitHub is away').toBe(true)
    nowMs = 120_000
    expect(await isFrom(BODY, mine.key_identifier, signature)).toBe(true)
    expect(asked).toBe(3)
  })
})
