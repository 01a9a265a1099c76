import { describe, expect, it } from 'vitest'
import { createRegions } from '../../gateway/policy/catalogue/regions.ts'
import { parseSettings, SettingsError } from '../../gateway/settings.ts'

describe('regions', () => {
  const regionsOf = createRegions({ CH: ['192.0.2.0/24', '2001:db8::/32'], office: ['192.0.2.128/25'] })

  it.each([
    ['192.0.2.1', ['CH']],
    ['192.0.2.200', ['CH', 'office']],
    ['::ffff:192.0.2.1', ['CH']], // how a dual-stack socket shows it
    ['2001:db8::1%eth0', ['CH']],
    ['192.0.3.0', []],
    ['nobody', []],
    ['', []],
  ])('of %s are %j', (address, regions) => {
    expect(regionsOf(address)).toEqual(regions)
  })

  it('come from the settings, and a range that is none is an error', () => {
    expect(parseSettings('regions: { CH: [192.0.2.0/24] }', '/').regions).toEqual({ CH: ['192.0.2.0/24'] })
    expect(parseSettings('', '/').regions).toEqual({})
    for (const wrong of ['192.0.2.0', '192.0.2.0/33', 'CH'])
      expect(() => parseSettings(`regions: { CH: ["${wrong}"] }`, '/')).toThrow(SettingsError)
    expect(() => parseSettings('regions: { CH: [x] }', '/')).toThrow(/like 192\.0\.2\.0\/24/)
  })
})
