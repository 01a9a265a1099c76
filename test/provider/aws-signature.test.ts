/** What the gateway signs is what AWS's own signers sign, for any request; and its chunks are those of the S3 documentation. */
import { createPublicKey, verify } from 'node:crypto'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setImmediate as turn } from 'node:timers/promises'
import { SignatureV4a } from '@smithy/signature-v4a'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { AWS4, AWS4A, type AwsClaim } from '../../gateway/protocol/aws-claim.ts'
import type { Outbound } from '../../gateway/protocol/message.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import { asymmetricKey } from '../../gateway/provider/aws/asymmetric.ts'
import { resignedBytes, resignedStream } from '../../gateway/provider/aws/chunks.ts'
import { resigned } from '../../gateway/provider/aws/resign.ts'
import { createSigner } from '../../gateway/provider/aws/signer.ts'
import { Upload } from '../../gateway/upstream/upload.ts'
import { plain, service } from '../lease/lease.fixture.ts'
import { type Keys, Sha256, sha256, verifySignature } from '../rig/aws-verifier.ts'

const KEYS: Keys = {
  accessKeyId: 'ASIAKEYLESSTESTKEY00',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY',
  sessionToken: 'token/of+session==',
}
const NOW_MS = Date.UTC(2026, 10, 22, 14, 15, 16)

function signerOf({ accessKeyId, secretAccessKey, sessionToken }: Keys) {
  const parts = {
    access_key_id: new Secret(accessKeyId),
    ...(sessionToken && { session_token: new Secret(sessionToken) }),
  }
  return createSigner({ secret: new Secret(secretAccessKey), parts })
}

function request(
  o: Partial<Outbound> & {
    readonly place: AwsClaim['place']
    readonly payload: string | undefined
    readonly name?: string
    readonly region?: string
    readonly algorithm?: typeof AWS4 | typeof AWS4A
  },
): Outbound {
  const { name = 's3', region = 'eu-west-1', algorithm = AWS4, place, payload, ...rest } = o
  const host = name === 's3' ? 'bucket.s3.eu-west-1.amazonaws.com' : `${name}.eu-west-1.amazonaws.com`
  return plain({
    service: service({ slots: [{ in: 'signature', scheme: 'aws4', services: [name] }], hosts: [host] }),
    host,
    signed: { place, scope: { algorithm, region, service: name }, ...(payload !== undefined && { payload }) },
    ...rest,
    headers: ['Host', host, ...(rest.headers ?? [])],
  })
}

const sign = (outbound: Outbound, keys = KEYS) =>
  resigned(outbound, { signer: signerOf(keys), nowMs: NOW_MS, region: 'eu-west-1', regions: undefined })

async function verdictOf(outbound: Outbound, keys = KEYS) {
  const body =
    outbound.body === null
      ? Buffer.alloc(0)
      : Buffer.isBuffer(outbound.body)
        ? outbound.body
        : await buffer(outbound.body)
  return verifySignature(
    { method: outbound.method, path: outbound.path, rawHeaders: outbound.headers, body },
    () => keys,
  )
}

const segment = fc
  .string({ unit: fc.constantFrom(..."abZ09-._~ +!*'()&=@:,$%é/"), minLength: 1, maxLength: 12 })
  .filter((text) => !/^\.{1,2}$/.test(text))
const s3Path = fc
  .array(segment, { minLength: 1, maxLength: 4 })
  .map((parts) => `/${parts.map(encodeURIComponent).join('/')}`)
const value = fc.string({ unit: fc.constantFrom(...'abZ09-._~ +!*/()&=?éß%'), maxLength: 10 })
const query = fc
  .dictionary(fc.string({ unit: fc.constantFrom(...'abcXYZ-_.'), minLength: 1, maxLength: 6 }), value, { maxKeys: 4 })
  .map((pairs) =>
    Object.entries(pairs)
      .map(([name, text]) => `${name}=${encodeURIComponent(text)}`)
      .join('&'),
  )
const metadata = fc.dictionary(
  fc.stringMatching(/^x-amz-meta-[a-z]{1,5}$/),
  fc.string({ unit: fc.constantFrom(...'ab  ,;"'), maxLength: 12 }),
  { maxKeys: 3 },
)
const flat = (fields: Record<string, string>) => Object.entries(fields).flat()

describe('signing requests anew', () => {
  it('signs any request to S3 as the signer of AWS does, in a header and in the query', async () => {
    await fc.assert(
      fc.asyncProperty(
        s3Path,
        query,
        metadata,
        fc.constantFrom('header' as const, 'query' as const),
        fc.boolean(),
        async (path, asked, fields, place, isSession) => {
          const keys = isSession ? KEYS : { ...KEYS, sessionToken: undefined }
          const signed = await sign(
            request({
              place,
              payload: undefined,
              path: asked === '' ? path : `${path}?${asked}`,
              headers: flat(fields),
            }),
            keys,
          )
          expect(await verdictOf(signed, keys)).toMatchObject({ region: 'eu-west-1', service: 's3' })
        },
      ),
      { numRuns: 150 },
    )
  })

  it('signs any request to other APIs as the signer of AWS does, body included', async () => {
    await fc.assert(
      fc.asyncProperty(s3Path, query, fc.uint8Array({ maxLength: 50 }), async (path, asked, bytes) => {
        const body = Readable.from([Buffer.from(bytes)], { objectMode: false })
        const signed = await sign(
          request({
            name: 'lambda',
            place: 'header',
            payload: undefined,
            method: 'POST',
            path: `${path}?${asked}`,
            body,
            headers: ['Content-Type', 'application/json'],
          }),
        )
        expect(await verdictOf(signed)).toMatchObject({ service: 'lambda' })
      }),
      { numRuns: 100 },
    )
  })

  it('signs a hash as the client declared it, so that whoever receives the body checks it', async () => {
    const body = Buffer.from('what is sent')
    const honest = await sign(request({ place: 'header', payload: sha256(body), method: 'PUT', path: '/key', body }))
    expect(await verdictOf(honest)).toMatchObject({ service: 's3' })
    const lie = await sign(request({ place: 'header', payload: sha256('other'), method: 'PUT', path: '/key', body }))
    expect(await verdictOf(lie)).toBe('other body')
    expect(lie.body).toBe(body)
  })

  it('signs version 4a for a set of regions, with the key that the signer of AWS derives', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.stringMatching(/^AKIA[A-Z0-9]{16}$/),
        fc.stringMatching(/^[A-Za-z0-9/+]{40}$/),
        async (accessKeyId, secretAccessKey) => {
          const keys = { accessKeyId, secretAccessKey }
          const signed = await sign(
            request({ place: 'header', payload: undefined, algorithm: AWS4A, path: '/a/b%20c' }),
            keys,
          )
          expect(await verdictOf(signed, keys)).toMatchObject({ region: 'eu-west-1', service: 's3' })
          const theirs = new SignatureV4a({
            credentials: keys,
            region: '*',
            service: 's3',
            sha256: Sha256 as never,
            applyChecksum: false,
          })
          const headers = { host: 'x.test' }
          const { headers: out } = await theirs.sign(
            { method: 'GET', protocol: 'https:', hostname: 'x.test', path: '/', query: {}, headers },
            { signingDate: new Date(NOW_MS) },
          )
          const [, names = '', signature = ''] = /SignedHeaders=([^,]+), Signature=(\w+)/.exec(out.authorization) ?? []
          const canonical = [
            'GET',
            '/',
            '',
            ...names.split(';').map((name) => `${name}:${out[name]}`),
            '',
            names,
            sha256(''),
          ].join('\n')
          const text = [
            'AWS4-ECDSA-P256-SHA256',
            out['x-amz-date'],
            '20261122/s3/aws4_request',
            sha256(canonical),
          ].join('\n')
          const key = createPublicKey(asymmetricKey(secretAccessKey, accessKeyId))
          expect(verify('sha256', Buffer.from(text), key, Buffer.from(signature, 'hex'))).toBe(true)
        },
      ),
      { numRuns: 10 },
    )
  })

  it('derives the key of version 4a that AWS publishes for an example pair', () => {
    const key = createPublicKey(
      asymmetricKey('q+jcrXGc+0zWN6uzclKVhvMmUsIfRPa4rlRandom', 'AKISORANDOMAASORANDOM'),
    ).export({ format: 'jwk' })
    const hex = (text: string | undefined) => Buffer.from(text ?? '', 'base64url').toString('hex')
    expect([hex(key.x), hex(key.y)]).toEqual([
      '15d242ceebf8d8169fd6a8b5a746c41140414c3b07579038da06af89190fffcb',
      '0515242cedd82e94799482e4c0514b505afccf2c0c98d6a553bf539f424c5ec0',
    ])
  })

  it.each([
    ['another region', { region: 'us-east-1' }],
    ['a region set that is wider', { region: '*', algorithm: AWS4A } as const],
    [
      'another service',
      { signed: { place: 'header', scope: { algorithm: AWS4, region: 'eu-west-1', service: 'iam' } } as const },
    ],
  ])('refuses a claim for %s than the host has', async (_, o) => {
    await expect(sign(request({ place: 'header', payload: undefined, path: '/', ...o }))).rejects.toMatchObject({
      code: 'target_mismatch',
    })
  })

  it.each([
    'STREAMING-AWS4-HMAC-SHA256-EVENTS',
    'STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD',
    'STREAMING-NEWER',
    'abc',
    '',
  ])('refuses a body of kind "%s", which cannot be signed anew', async (payload) => {
    await expect(sign(request({ place: 'header', payload, path: '/' }))).rejects.toMatchObject({
      code: 'request_malformed',
    })
  })

  it('signs a presigned URL for minutes only, and none that has ended', async () => {
    const asked = request({ place: 'query', payload: undefined, path: '/k?x-id=GetObject' })
    const signed = await sign(asked)
    expect(signed.path).toContain('X-Amz-Expires=300')
    const ended = { ...asked, signed: { ...asked.signed, place: 'query', endsAt: NOW_MS / 1000 } as AwsClaim }
    await expect(sign(ended)).rejects.toMatchObject({ code: 'request_malformed' })
  })

  it('holds no more of a body than it must: one that is too large to hash is refused', async () => {
    let read = 0
    const endless = Readable.from(
      (function* () {
        for (;;) {
          read += 1
          yield Buffer.alloc(1 << 20)
        }
      })(),
      { objectMode: false },
    )
    await expect(
      sign(request({ name: 'lambda', place: 'header', payload: undefined, method: 'POST', path: '/', body: endless })),
    ).rejects.toMatchObject({ code: 'content_too_large' })
    expect(read).toBeLessThan(40)
    endless.destroy()
  })
})

/** Amazon S3 API reference, "Transferring payload in multiple chunks" and "Including trailing headers". */
describe('chunks of the S3 documentation', () => {
  const keys = { accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY' }
  const stamp = { scope: { algorithm: AWS4, region: 'us-east-1', service: 's3' }, date: '20130524T000000Z' } as const
  const framed = (trailer: string) =>
    Buffer.concat(
      [65536, 1024, 0].map((size) =>
        Buffer.concat([
          Buffer.from(`${size.toString(16)};chunk-signature=${'0'.repeat(64)}\r\n`),
          Buffer.alloc(size, 'a'),
          Buffer.from(size === 0 && trailer !== '' ? trailer : '\r\n'),
        ]),
      ),
    )
  const trailer = `x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:${'0'.repeat(64)}\r\n\r\n`
  /** As minio-go ends the lines of its trailer. */
  const ofMinio = trailer.replace('\r\n', '\n\r\n')
  const made = new Map(['', trailer, ofMinio].map((end) => [end, framed(end)]))
  const frames = (end: string) => made.get(end) as Buffer
  const signatures = (body: Buffer) =>
    [...body.toString('latin1').matchAll(/signature[=:]([0-9a-f]{64})/g)].map(([, one]) => one)

  it('are signed as published', () => {
    const terms = {
      signer: signerOf(keys),
      stamp,
      seed: '4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9',
      hasTrailer: false,
      length: 66_560,
    }
    expect(signatures(resignedBytes(frames(''), terms))).toEqual([
      'ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648',
      '0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497',
      'b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9',
    ])
  })

  it.each([trailer, ofMinio])('are signed as published, with their trailer: %j', (end) => {
    const seed = '106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e'
    const terms = { signer: signerOf(keys), stamp, seed, hasTrailer: true, length: 66_560 }
    expect(signatures(resignedBytes(frames(end), terms))).toEqual([
      'b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2',
      '1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7',
      '2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992',
      'd81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435',
    ])
  })

  it('pass in any pieces with every byte but the signatures, and the same length', async () => {
    for (const end of ['', trailer, ofMinio]) {
      const terms = { signer: signerOf(keys), stamp, seed: 'a'.repeat(64), hasTrailer: end !== '', length: 66_560 }
      const whole = resignedBytes(frames(end), terms)
      expect(whole.length).toBe(frames(end).length)
      expect(whole.toString('latin1').replace(/(signature[=:])[0-9a-f]{64}/g, `$1${'0'.repeat(64)}`)).toBe(
        frames(end).toString('latin1'),
      )
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.integer({ min: 1, max: 9_000 }), { minLength: 1, maxLength: 30 }),
          async (sizes) => {
            const pieces: Buffer[] = []
            for (let at = 0, i = 0; at < frames(end).length; i += 1) {
              const size = sizes[i % sizes.length] ?? 1
              pieces.push(frames(end).subarray(at, at + size))
              at += size
            }
            expect(
              (await buffer(resignedStream(Readable.from(pieces, { objectMode: false }), terms))).equals(whole),
            ).toBe(true)
          },
        ),
        { numRuns: 10 },
      )
    }
  })

  it.each([
    [64 * 1024, 1024 * 1024],
    [4 * 1024 * 1024, 12 * 1024 * 1024], // the largest chunk, held until its signature is known, and handed on
  ])('of %i bytes are held for an upstream that reads slowly, and %i bytes at most', async (size, bound) => {
    const length = 64 * 1024 * 1024
    const sparse = Buffer.alloc(64 * 1024)
    let ahead = 0
    const sent = function* () {
      const take = (bytes: Buffer) => {
        ahead += bytes.length
        return bytes
      }
      for (let at = 0; at < length; at += size) {
        yield take(Buffer.from(`${size.toString(16)};chunk-signature=${'0'.repeat(64)}\r\n`))
        for (let of = 0; of < size; of += sparse.length) yield take(sparse)
        yield take(Buffer.from('\r\n'))
      }
      yield take(Buffer.from(`0;chunk-signature=${'0'.repeat(64)}\r\n\r\n`))
    }
    const terms = { signer: signerOf(keys), stamp, seed: 'a'.repeat(64), hasTrailer: false, length }
    const body = resignedStream(Readable.from(sent(), { objectMode: false }), terms)
    let [most, total] = [0, 0]
    for await (const bytes of new Upload(body, {})) {
      most = Math.max(most, ahead)
      ahead -= bytes.length
      total += bytes.length
      await turn()
    }
    expect(total).toBeGreaterThan(length)
    expect(ahead).toBe(0)
    expect(most).toBeLessThan(bound)
  })

  it.each<[string, (body: string) => string]>([
    ['a chunk that is longer than it says', (body) => body.replace('10000;', 'ffff;')],
    ['a chunk that is shorter than it says', (body) => body.replace('10000;', '10001;')],
    ['an end that is missing', (body) => body.slice(0, -90)],
    ['a last line break that is missing', (body) => body.slice(0, -1)],
    ['something after the end', (body) => `${body}GET / HTTP/1.1\r\n\r\n`],
    ['another extension', (body) => body.replace(';chunk-signature', ';x=1;chunk-signature')],
    ['a signature that is short', (body) => body.replace('0000\r\n', '000\r\n')],
    ['a sign before the size', (body) => `-${body}`],
    ['a space before the size', (body) => ` ${body}`],
    ['a size that is too large', (body) => body.replace('10000;', 'ffffffff;')],
    ['a line break of one character', (body) => body.replace('\r\n', '\n')],
  ])('refuses %s', async (_, spoil) => {
    const terms = { signer: signerOf(keys), stamp, seed: 'a'.repeat(64), hasTrailer: false, length: 66_560 }
    const spoilt = Buffer.from(spoil(frames('').toString('latin1')), 'latin1')
    expect(() => resignedBytes(spoilt, terms)).toThrow(expect.objectContaining({ code: 'request_malformed' }))
    await expect(buffer(resignedStream(Readable.from([spoilt], { objectMode: false }), terms))).rejects.toMatchObject({
      code: 'request_malformed',
    })
  })

  it('refuses another length than the head announces', () => {
    const terms = { signer: signerOf(keys), stamp, seed: 'a'.repeat(64), hasTrailer: false }
    for (const length of [0, 66_559, 66_561])
      expect(() => resignedBytes(frames(''), { ...terms, length })).toThrow(
        expect.objectContaining({ code: 'request_malformed' }),
      )
  })
})
