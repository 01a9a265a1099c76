import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { classifyAddress, isDialable, isDisguisedAddress, isMetadataName } from '../../gateway/upstream/address.ts'
import type { AddressClass } from '../../gateway/upstream/special-addresses.ts'

const rows: readonly [string, AddressClass][] = [
  ['8.8.8.8', 'public'],
  ['0.0.0.0', 'reserved'],
  ['0.255.255.255', 'reserved'],
  ['1.0.0.0', 'public'], // just outside "this network"
  ['9.255.255.255', 'public'],
  ['10.0.0.0', 'private'],
  ['10.255.255.255', 'private'],
  ['11.0.0.0', 'public'],
  ['100.63.255.255', 'public'], // just outside CGNAT
  ['100.64.0.0', 'cgnat'],
  ['100.127.255.255', 'cgnat'],
  ['100.128.0.0', 'public'],
  ['100.100.100.199', 'cgnat'],
  ['100.100.100.200', 'metadata'],
  ['126.255.255.255', 'public'],
  ['127.0.0.1', 'loopback'],
  ['127.255.255.254', 'loopback'],
  ['128.0.0.0', 'public'],
  ['168.63.129.15', 'public'],
  ['168.63.129.16', 'metadata'],
  ['169.253.255.255', 'public'],
  ['169.254.0.1', 'link-local'],
  ['169.254.169.253', 'link-local'],
  ['169.254.169.254', 'metadata'],
  ['169.254.170.2', 'metadata'],
  ['169.255.0.0', 'public'],
  ['172.15.255.255', 'public'],
  ['172.16.0.0', 'private'],
  ['172.31.255.255', 'private'],
  ['172.32.0.0', 'public'],
  ['192.0.0.0', 'reserved'],
  ['192.0.0.192', 'metadata'],
  ['192.0.1.0', 'public'],
  ['192.0.2.1', 'reserved'],
  ['192.88.99.1', 'reserved'],
  ['192.167.255.255', 'public'],
  ['192.168.0.0', 'private'],
  ['192.169.0.0', 'public'],
  ['198.17.255.255', 'public'],
  ['198.18.0.0', 'reserved'],
  ['198.19.255.255', 'reserved'],
  ['198.20.0.0', 'public'],
  ['198.51.100.7', 'reserved'],
  ['203.0.113.7', 'reserved'],
  ['223.255.255.255', 'public'],
  ['224.0.0.1', 'multicast'],
  ['239.255.255.255', 'multicast'],
  ['240.0.0.0', 'reserved'],
  ['255.255.255.255', 'reserved'],
  ['::', 'reserved'],
  ['::1', 'loopback'],
  ['::2', 'reserved'],
  ['::7f00:1', 'loopback'], // IPv4-compatible
  ['::ffff:8.8.8.8', 'public'],
  ['::ffff:127.0.0.1', 'loopback'],
  ['::ffff:7f00:1', 'loopback'],
  ['::ffff:169.254.169.254', 'metadata'],
  ['::ffff:0:127.0.0.1', 'loopback'], // SIIT
  ['::ffff:0:8.8.8.8', 'reserved'],
  ['64:ff9b::8.8.8.8', 'public'],
  ['64:ff9b::10.0.0.1', 'private'],
  ['64:ff9b::169.254.169.254', 'metadata'],
  ['64:ff9b:0:0:0:1:808:808', 'reserved'], // outside the /96
  ['64:ff9b:1::8.8.8.8', 'private'],
  ['64:ff9b:1::169.254.169.254', 'metadata'],
  ['100::1', 'reserved'], // discard-only
  ['1fff:ffff::', 'reserved'],
  ['2000::1', 'public'],
  ['2001:0:808:808:0:0:f7f7:f7f7', 'public'], // Teredo, both ends 8.8.8.8
  ['2001:0:808:808:0:0:80ff:fefe', 'loopback'], // Teredo client 127.0.1.1
  ['2001:0:a00:1:0:0:f7f7:f7f7', 'private'], // Teredo server 10.0.0.1
  ['2001:2::1', 'reserved'],
  ['2001:1ff:ffff::', 'reserved'],
  ['2001:200::1', 'public'],
  ['2001:db8::1', 'reserved'],
  ['2001:db9::1', 'public'],
  ['2002:808:808::1', 'public'],
  ['2002:7f00:1::1', 'loopback'],
  ['2002:a9fe:a9fe::1', 'metadata'],
  ['2606:4700::1111', 'public'],
  ['3ffe:ffff::1', 'public'],
  ['3fff::1', 'reserved'],
  ['3fff:fff::1', 'reserved'],
  ['4000::1', 'reserved'],
  ['5f00::1', 'reserved'],
  ['fbff::1', 'reserved'],
  ['fc00::1', 'private'],
  ['fd00:ec1:ffff::1', 'private'], // just outside the block of AWS
  ['fd00:ec2::253', 'metadata'],
  ['fd00:ec3::', 'private'],
  ['fd00:c1::a9fe:a9fe', 'metadata'],
  ['fd00:100::100:200', 'metadata'],
  ['fd00:a9fe:a9fe::1', 'metadata'],
  ['fd20:ce::254', 'metadata'],
  ['64:ff9b:1:a9fe:a9:fe00::', 'metadata'], // local-use NAT64, IPv4 behind 48 bits
  ['64:ff9b:1:a9:fe:a9fe::', 'metadata'], // behind 56
  ['64:ff9b:1:0:a9:fea9:fe00:0', 'metadata'], // behind 64
  ['2606:4700::5efe:a9fe:a9fe', 'metadata'], // ISATAP
  ['2606:4700::200:5efe:7f00:1', 'loopback'],
  ['2606:4700::5efe:808:808', 'public'],
  ['fd00:ec2::254', 'metadata'],
  ['fdff:ffff::1', 'private'],
  ['fe80::1', 'link-local'],
  ['fe80::a9fe:a9fe', 'metadata'],
  ['febf:ffff::1', 'link-local'],
  ['fec0::1', 'private'],
  ['ff02::1', 'multicast'],
  ['fe80::1%eth0', 'invalid'],
  ['2606:4700::1111%25eth0', 'invalid'],
  ['127.1', 'invalid'],
  ['0177.0.0.1', 'invalid'],
  ['2130706433', 'invalid'],
  ['0x7f000001', 'invalid'],
  ['8.8.8.8/32', 'invalid'],
  ['256.1.1.1', 'invalid'],
  ['', 'invalid'],
  ['localhost', 'invalid'],
]

describe('classifyAddress', () => {
  it.each(rows)('says that %s is %s', (ip, kind) => {
    expect(classifyAddress(ip)).toBe(kind)
  })

  const octet = fc.integer({ min: 0, max: 255 })
  const quad = fc.tuple(octet, octet, octet, octet)

  it('judges every embedding of an IPv4 address no better than the address itself', () => {
    fc.assert(
      fc.property(quad, ([a, b, c, d]) => {
        const plain = `${a}.${b}.${c}.${d}`
        const [high, low] = [((a << 8) | b).toString(16), ((c << 8) | d).toString(16)]
        const [notHigh, notLow] = [(~((a << 8) | b) & 0xffff).toString(16), (~((c << 8) | d) & 0xffff).toString(16)]
        const forms = [
          `::ffff:${plain}`,
          `::FFFF:${high}:${low}`,
          `64:ff9b::${plain}`,
          `2002:${high}:${low}::`,
          `2001:0:${high}:${low}::${notHigh}:${notLow}`,
        ]
        for (const form of forms) expect(classifyAddress(form)).toBe(classifyAddress(plain))
        if (classifyAddress(plain) === 'metadata') expect(isDialable(`64:ff9b:1::${plain}`, ['::/0'])).toBe(false)
        expect(classifyAddress(`64:ff9b:1::${plain}`)).not.toBe('public')
        expect(classifyAddress(`::${plain}`)).not.toBe('public')
      }),
    )
  })

  it('dials nothing but public addresses when no range is named', () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (ip) => {
        expect(isDialable(ip, [])).toBe(classifyAddress(ip) === 'public')
      }),
    )
  })

  it('never dials a metadata service or a link-local address, whatever the ranges say', () => {
    const everything = ['0.0.0.0/0', '::/0']
    for (const [ip, kind] of rows) {
      if (['metadata', 'link-local', 'invalid'].includes(kind)) expect(isDialable(ip, everything), ip).toBe(false)
      else expect(isDialable(ip, everything), ip).toBe(true)
    }
  })
})

describe('isDialable', () => {
  it.each([
    ['127.0.0.1', ['127.0.0.0/8'], true],
    ['::ffff:127.0.0.1', ['127.0.0.0/8'], true],
    ['127.0.0.1', ['127.0.0.2/32'], false],
    ['10.1.0.0', ['10.0.0.0/16'], false], // first address after the range
    ['10.0.255.255', ['10.0.0.0/16'], true],
    ['::1', ['::1/128'], true],
    ['::1', ['127.0.0.0/8'], false],
    ['fd12::1', ['fd12::/16'], true],
    ['64:ff9b::10.0.0.1', ['10.0.0.0/8'], false], // another place than 10.0.0.1: named itself or not at all
  ])('%s within %j: %s', (ip, allowed, expected) => {
    expect(isDialable(ip, allowed)).toBe(expected)
  })
})

it.each([
  ['metadata.google.internal', true],
  ['metadata.google.internal.', true],
  ['x.metadata.google.internal', true],
  ['metadata.goog', true],
  ['instance-data', true],
  ['metadata', true],
  ['metadata.example.com', false],
  ['google.internal', false],
])('the name %s is that of a metadata service: %s', (name, expected) => {
  expect(isMetadataName(name)).toBe(expected)
})

describe('isDisguisedAddress', () => {
  it.each([
    ['127.1', true],
    ['2130706433', true],
    ['017700000001', true],
    ['0x7f000001', true],
    ['0x7f.0.0.1', true],
    ['0177.0.0.1', true],
    ['1.2.3.4.', true],
    ['1.2.3.0x', true],
    ['foo.0x1f', true],
    ['256.256.256.256', true],
    ['01.2.3.4', true],
    ['::1%lo', true],
    ['1.2.3.4', false],
    ['::1', false],
    ['2606:4700::1111', false],
    ['api.github.com', false],
    ['3com.example', false],
    ['0x7f.example', false],
    ['deadbeef', false],
  ])('%s: %s', (host, expected) => {
    expect(isDisguisedAddress(host)).toBe(expected)
  })
})
