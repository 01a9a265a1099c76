import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readAwsClaim, withoutAwsSignature } from '../../gateway/protocol/aws-claim.ts'

const HEADER =
  'AWS4-HMAC-SHA256 Credential=AKIAKEYLESSPLACEHOLD/20261122/eu-west-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=abc'
const QUERY =
  'X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=A%2F20261122%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Date=20261122T100000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=abc'
const signed = (value: string, ...more: string[]) => readAwsClaim(['Authorization', value, ...more], '/')

describe('what an agent’s signature claims', () => {
  it('is region and service, of a header or of a presigned URL', () => {
    const scope = { algorithm: 'AWS4-HMAC-SHA256', region: 'eu-west-1', service: 's3' }
    expect(signed(HEADER, 'x-amz-content-sha256', 'UNSIGNED-PAYLOAD')).toEqual({
      place: 'header',
      payload: 'UNSIGNED-PAYLOAD',
      scope,
    })
    expect(readAwsClaim([], `/k?a=b&${QUERY}`)).toEqual({
      place: 'query',
      endsAt: Date.UTC(2026, 10, 22, 10, 1) / 1000,
      scope,
    })
  })

  it('is a set of regions in version 4a', () => {
    const value = 'AWS4-ECDSA-P256-SHA256 Credential=A/20261122/s3/aws4_request, SignedHeaders=host, Signature=abc'
    expect(signed(value, 'X-Amz-Region-Set', 'eu-west-1,us-*').scope).toMatchObject({
      region: 'eu-west-1,us-*',
      service: 's3',
    })
    expect(() => signed(value)).toThrow()
  })

  it('is nothing where the request is not signed, or as it was before version 4', () => {
    for (const value of ['AWS AKIA:c2ln', 'Bearer x', 'Basic x']) expect(signed(value)).toEqual({ place: 'header' })
    expect(readAwsClaim([], '/k?AWSAccessKeyId=A&Signature=b&Expires=1')).toEqual({ place: 'header' })
  })

  it.each([
    ['two credentials', HEADER.replace('Credential=', 'Credential=A/20261122/us-east-1/iam/aws4_request, Credential=')],
    [
      'two credentials, one in another case',
      HEADER.replace('Credential=', 'credential=A/20261122/us-east-1/iam/aws4_request, Credential='),
    ],
    ['no credential', 'AWS4-HMAC-SHA256 SignedHeaders=host, Signature=abc'],
    ['another algorithm', HEADER.replace('HMAC-SHA256', 'HMAC-SHA512')],
    ['another end', HEADER.replace('aws4_request', 'aws5_request')],
    ['a region of another alphabet', HEADER.replace('eu-west-1', 'eu west 1')],
    ['a region with a line break', HEADER.replace('eu-west-1', 'eu-west-1\\n')],
    ['no date', HEADER.replace('20261122/', '')],
  ])('is refused with %s', (_, value) => {
    expect(() => signed(value)).toThrow(expect.objectContaining({ code: 'request_malformed' }))
  })

  it('is refused when it is there twice', () => {
    for (const [headers, path] of [
      [['Authorization', HEADER, 'authorization', HEADER], '/'],
      [['Authorization', HEADER], `/k?${QUERY}`],
      [[], `/k?${QUERY}&x-amz-credential=B`],
      [[], `/k?${QUERY}&X%2DAmz%2DCredential=B`],
      [['Authorization', HEADER, 'X-Amz-Content-Sha256', 'a', 'x-amz-content-sha256', 'b'], '/'],
    ] as const)
      expect(() => readAwsClaim(headers, path)).toThrow(expect.objectContaining({ code: 'request_malformed' }))
  })

  it('leaves nothing of itself in a query, however it is spelled', () => {
    const names = [
      'X-Amz-Signature',
      'X-Amz-Credential',
      'X-Amz-Security-Token',
      'X-Amz-Algorithm',
      'X-Amz-Date',
      'X-Amz-Expires',
      'X-Amz-SignedHeaders',
      'X-Amz-S3session-Token',
      'AWSAccessKeyId',
    ]
    const spelled = fc.constantFrom(...names).chain((name) =>
      fc
        .array(fc.constantFrom('as', 'upper', 'lower', 'hex', 'twice'), {
          minLength: name.length,
          maxLength: name.length,
        })
        .map((ways) => [...name].map((c, i) => spell(c, ways[i] ?? 'as')).join('')),
    )
    fc.assert(
      fc.property(spelled, fc.constantFrom('', '=', '=x', '=%2F'), (name, value) => {
        expect(withoutAwsSignature(`/k?a=1&${name}${value}&b=%2f+`)).toBe('/k?a=1&b=%2f+')
        expect(withoutAwsSignature(`/k?${name}${value}`)).toBe('/k')
      }),
    )
  })

  it('leaves every other byte of a query as it was', () => {
    for (const path of [
      '/k',
      '/k?',
      '/k?x-id=GetObject&versionId=a%2fb&&x-amz-acl=private&Expires=1&response-content-type=a%3Bb',
      '/X-Amz-Signature',
    ])
      expect(withoutAwsSignature(path)).toBe(path)
  })
})

function spell(c: string, way: string): string {
  const hex = `%${c.charCodeAt(0).toString(16)}`
  return { as: c, upper: c.toUpperCase(), lower: c.toLowerCase(), hex, twice: hex.replace('%', '%25') }[way] ?? c
}
