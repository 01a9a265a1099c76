import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  fixedEnd,
  HostTable,
  isHostPattern,
  labelNames,
  overlap,
  parseHostPattern,
} from '../../gateway/protocol/host-pattern.ts'
import { plainHost, servesHost } from '../../gateway/protocol/service.ts'

function pattern(text: string) {
  const parsed = parseHostPattern(text)
  if (parsed === undefined) throw new Error(`${text} is no pattern`)
  return parsed
}

function match(text: string, host: string) {
  const table = new HostTable<string>()
  table.add(pattern(text), text)
  return table.match(host)?.params
}

const S3 = '{bucket}.s3.{region}.amazonaws.com'

describe('a pattern of hosts', () => {
  it.each([
    [S3, 'photos.s3.eu-west-1.amazonaws.com', { bucket: 'photos', region: 'eu-west-1' }],
    [S3, 'xn--bcher-kva.s3.us-gov-east-1.amazonaws.com', { bucket: 'xn--bcher-kva', region: 'us-gov-east-1' }],
    ['{bucket+}.s3.amazonaws.com', 'a.b.c.s3.amazonaws.com', { bucket: 'a.b.c' }],
    ['{bucket+}.s3.amazonaws.com', 's3.s3.amazonaws.com', { bucket: 's3' }],
    ['{location}-aiplatform.googleapis.com', 'europe-west4-aiplatform.googleapis.com', { location: 'europe-west4' }],
    ['s3-{region}.amazonaws.com', 's3-eu-west-1.amazonaws.com', { region: 'eu-west-1' }],
  ])('%s takes %s', (text, host, params) => {
    expect(match(text, host)).toEqual(params)
  })

  it.each([
    'evil.s3.eu-west-1.amazonaws.com.attacker.test', // the fixed end is the end
    'evil.s3.eu-west-1.amazonaws.com.',
    'Evil.s3.eu-west-1.amazonaws.com',
    'evil.S3.eu-west-1.amazonaws.com',
    'a.b.s3.eu-west-1.amazonaws.com', // one label, not two
    's3.eu-west-1.amazonaws.com',
    '.s3.eu-west-1.amazonaws.com',
    'evil.s3.eu-west-1.amazonaws.com:443',
    'evil@x.s3.eu-west-1.amazonaws.com',
    'ev%2eil.s3.eu-west-1.amazonaws.com',
    'evil_x.s3.eu-west-1.amazonaws.com',
    'bücher.s3.eu-west-1.amazonaws.com',
    'evil.s3.eu-west-1.amazonaws。com',
    'evil.s3.s3.amazonaws.com', // no cloud has a region called s3
    'evil.s3.eu-west-1.amazonaws.co',
    'evil.s3.eu-west-1.xamazonaws.com',
    S3,
    '',
    '.',
    '..',
  ])(`${S3} does not take %j`, (host) => {
    expect(match(S3, host)).toBeUndefined()
  })

  it.each([
    '{a}.com', // everybody's
    '{a}.{b}.com',
    '{a}',
    'x.{a}',
    'x.{a+}.acme.test', // several labels in the middle could be cut in two ways
    '{a}{b}.acme.test',
    '{a.acme.test',
    '{A}.acme.test',
    '{}.acme.test',
    '{a}.{a}.acme.test',
    '{a+}x.acme.test',
    '{a}.Acme.test',
    '{a}.acme.test.',
    '{a}..test',
    '{a}.0.0.1', // an address
    '*.acme.test',
    'api.acme.test',
    'https://{a}.acme.test',
    '{a}.acme.test:443',
  ])('%j is none', (text) => {
    expect(parseHostPattern(text)).toBeUndefined()
  })

  it('ends in the labels below which all its hosts are', () => {
    expect(fixedEnd(S3)).toBe('amazonaws.com')
    expect(fixedEnd('{location}-aiplatform.googleapis.com')).toBe('googleapis.com')
    expect(fixedEnd('api.github.com')).toBe('api.github.com')
    expect(labelNames('{bucket+}.s3.{region}.amazonaws.com')).toEqual(['bucket', 'region'])
  })
})

describe('two patterns', () => {
  it.each([
    [S3, '{bucket+}.s3.amazonaws.com', false],
    ['sqs.{region}.amazonaws.com', '{bucket+}.s3.amazonaws.com', false],
    [S3, '{bucket+}.s3.dualstack.{region}.amazonaws.com', false],
    [S3, '{name}.s3.{region}.amazonaws.com', true],
    [S3, '{bucket+}.s3.{region}.amazonaws.com', true],
    ['{x}.api.acme.test', 'eu.{y}.acme.test', true],
    ['{x}-a.acme.test', '{y}-b.acme.test', false],
    ['a-{x}.acme.test', '{y}-b.acme.test', true],
  ])('%s and %s: a host can match both: %s', (a, b, expected) => {
    expect(overlap(pattern(a), pattern(b))).toBe(expected)
    expect(overlap(pattern(b), pattern(a))).toBe(expected)
  })
})

const word = fc.constantFrom('a', 'b', 's3', 'x-1', 'eu-west-1', 'a-x', 'xn--a')
const braces = fc.constantFrom('{p}', '{region}', 'a-{p}', '{p}-x')
const drawn = fc
  .tuple(fc.constantFrom('', '{many+}.'), fc.array(fc.oneof(word, braces), { minLength: 1, maxLength: 3 }))
  .map(([front, labels]) => {
    // names differ, so that only the shape is drawn
    const named = labels.map((label, i) => label.replace('{p}', `{p${i}}`))
    const once = named.filter((label, i) => label !== '{region}' || named.indexOf(label) === i)
    return `${front}${once.join('.')}.acme.test`
  })
  .filter(isHostPattern)
const host = fc.array(word, { minLength: 1, maxLength: 5 }).map((labels) => `${labels.join('.')}.acme.test`)

describe('for all patterns and hosts', () => {
  it('a host that two patterns match is one in which they overlap', () => {
    fc.assert(
      fc.property(drawn, drawn, host, (a, b, name) => {
        const both = match(a, name) !== undefined && match(b, name) !== undefined
        expect(both && !overlap(pattern(a), pattern(b))).toBe(false)
      }),
      { numRuns: 2000 },
    )
  })

  it('what stands in the braces, put back into them, is the host', () => {
    fc.assert(
      fc.property(drawn, host, (text, name) => {
        const params = match(text, name)
        if (params === undefined) return
        expect(text.replace(/\{(\w+)\+?\}/g, (_, key: string) => params[key] ?? '')).toBe(name)
      }),
      { numRuns: 2000 },
    )
  })

  it('a table finds what a table of that pattern alone finds', () => {
    fc.assert(
      fc.property(fc.uniqueArray(drawn, { maxLength: 6 }), host, (texts, name) => {
        const kept = texts.filter((text, i) =>
          texts.slice(0, i).every((other) => !overlap(pattern(other), pattern(text))),
        )
        const table = new HostTable<string>()
        for (const text of kept) table.add(pattern(text), text)
        const expected = kept.find((text) => match(text, name) !== undefined)
        expect(table.match(name)?.value).toBe(expected)
      }),
      { numRuns: 1000 },
    )
  })

  it('nothing outside the fixed end belongs to a service, whatever the text', () => {
    const service = { hosts: ['api.acme.test', S3, '{bucket+}.s3.amazonaws.com'] }
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.webAuthority(),
          host.map((name) => `${name}.attacker.test`),
        ),
        (text) => {
          if (servesHost(service, text)) expect(text).toMatch(/^(?:api\.acme\.test|[a-z0-9.-]+\.amazonaws\.com)$/)
        },
      ),
      { numRuns: 2000 },
    )
  })
})

describe('a service', () => {
  it('answers on its exact hosts and those of its patterns', () => {
    const service = { hosts: [S3, 's3.amazonaws.com'] }
    expect(servesHost(service, 's3.amazonaws.com')).toBe(true)
    expect(servesHost(service, 'a.s3.eu-west-1.amazonaws.com')).toBe(true)
    expect(servesHost(service, S3)).toBe(false) // the text of a pattern is no host
    expect(servesHost(service, 'a.s3.eu-west-1.amazonaws.com.attacker.test')).toBe(false)
    expect(plainHost(service)).toBe('s3.amazonaws.com')
    expect(plainHost({ hosts: [S3] })).toBeUndefined()
  })
})
