/** Regions as the settings draw them: names for ranges of addresses, which the constraint `geo` of a grant speaks of. */
import { z } from 'zod'
import { cidrContains, parseAddress, parseCidr } from '../../protocol/cidr.ts'

const range = z.string().refine((text) => parseCidr(text) !== undefined, {
  params: { allowed: 'a range of addresses (CIDR)', fix: 'write an address and a prefix length, like 192.0.2.0/24' },
})

export const regionsSchema = z
  .record(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9-]{0,31}$/), z.array(range).min(1))
  .describe(
    'Region: ranges of addresses (CIDR), such as CH: [192.0.2.0/24]. Grants constrained to a region serve callers from there only; who is in none serves none of them. Default none.',
  )

/** @returns names of all regions that hold the address; none for what is not an address. */
export function createRegions(
  regions: Readonly<Record<string, readonly string[]>>,
): (address: string) => readonly string[] {
  const table = Object.entries(regions).map(([name, ranges]) => ({
    name,
    ranges: ranges.flatMap((text) => parseCidr(text) ?? []),
  }))
  return (text) => {
    const address = parseAddress(text)
    if (address === undefined) return []
    return table.flatMap(({ name, ranges }) => (ranges.some((one) => cidrContains(one, address)) ? [name] : []))
  }
}
