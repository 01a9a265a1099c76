import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cidrContains, cidrIncludes, formatCidr, parseAddress, parseCidr } from '../../gateway/protocol/cidr.ts'

function holds(range: string, text: string): boolean | undefined {
  const [cidr, address] = [parseCidr(range), parseAddress(text)]
  return cidr && address && cidrContains(cidr, address)
}

describe('ranges', () => {
  it.each<[string, string, boolean | undefined]>([
    ['10.0.0.0/8', '10.255.255.255', true],
    ['10.0.0.0/8', '11.0.0.0', false],
    ['10.0.0.0/8', '::ffff:10.1.2.3', true], // as a dual-stack socket shows it
    ['10.0.0.0/8', '::ffff:0a01:203', true],
    ['10.0.0.0/8', '::10.1.2.3', false], // not the same place
    ['10.0.0.0/8', '64:ff9b::10.1.2.3', false],
    ['::ffff:10.0.0.0/104', '10.1.2.3', true],
    ['::ffff:0:0/96', '192.0.2.1', true],
    ['::/0', '10.1.2.3', false], // IPv6 ranges hold no IPv4 address
    ['::/0', '::ffff:10.1.2.3', false],
    ['::/0', '2001:db8::1', true],
    ['0.0.0.0/0', '2001:db8::1', false],
    ['2001:db8::/33', '2001:db8:7fff:ffff::', true],
    ['2001:db8::/33', '2001:db8:8000::', false],
    ['fe80::/10', 'fe80::1%eth0', true],
    ['192.0.2.1/32', '192.0.2.1', true],
    ['10.0.0.1/8', '10.2.2.2', true], // bits beyond the prefix mean nothing here; details refuse them
    ['10.0.0.0/8', '', undefined],
    ['10.0.0.0/8', 'unix', undefined],
    ['10.0.0.0/8', '10.1', undefined],
    ['10.0.0.0/8', '0x0a.1.2.3', undefined],
    ['10.0.0.0/8', '012.1.2.3', undefined],
    ['10.0.0.0/8', '10.1.2.3, 192.0.2.1', undefined],
    ['10.0.0.0', '10.0.0.0', undefined],
    ['10.0.0.0/-1', '10.0.0.0', undefined],
    ['10.0.0.0/ 8', '10.0.0.0', undefined],
    ['10.0.0.0/8/8', '10.0.0.0', undefined],
    ['::ffff:10.0.0.0/95', '10.0.0.0', undefined],
    ['fe80::%1/10', 'fe80::1', undefined],
  ])('%s holds %s: %s', (range, address, expected) => {
    expect(holds(range, address)).toBe(expected)
  })

  const v4 = fc.tuple(fc.ipV4(), fc.integer({ min: 0, max: 32 }))
  const v6 = fc.tuple(fc.ipV6(), fc.integer({ min: 0, max: 128 }))
  const range = fc.oneof(v4, v6).map(([base, bits]) => `${base}/${bits}`)

  it('have one way of being written, which is read as the same range', () => {
    fc.assert(
      fc.property(range, (text) => {
        const cidr = parseCidr(text)
        if (cidr === undefined) throw new Error(text)
        const written = formatCidr(cidr)
        const again = parseCidr(written)
        expect(again && formatCidr(again)).toBe(written)
        expect(again && cidrIncludes(again, cidr) && cidrIncludes(cidr, again)).toBe(true)
      }),
      { examples: [['::ffff:10.9.9.9/104'], ['255.255.255.255/0'], ['ffff::ffff/1']] },
    )
  })

  it('that include one another hold every address of the inner one', () => {
    const near = fc.tuple(fc.constantFrom('10.0.0.0', '10.128.0.0', '10.64.0.1'), fc.integer({ min: 0, max: 12 }))
    const last = fc.integer({ min: 0, max: 255 })
    fc.assert(
      fc.property(near, near, last, ([a, aBits], [b, bBits], byte) => {
        const [outer, inner] = [parseCidr(`${a}/${aBits}`), parseCidr(`${b}/${bBits}`)]
        const address = parseAddress(`10.${byte}.0.1`)
        if (!outer || !inner || !address) throw new Error('unread')
        if (cidrIncludes(outer, inner) && cidrContains(inner, address)) expect(cidrContains(outer, address)).toBe(true)
      }),
      { numRuns: 5000 },
    )
  })
})
