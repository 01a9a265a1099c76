/** A bucket has two addresses, in the path and in the host: what a grant says of one holds at the other. */
import { describe, expect, it } from 'vitest'
import { entriesFor, isPlaceOf } from '../../gateway/protocol/authority.ts'
import type { Authority } from '../../gateway/protocol/grant.ts'
import type { Service } from '../../gateway/protocol/service.ts'
import { sessionPolicy } from '../../gateway/provider/aws/policy.ts'
import { catalogueOf, inbound } from '../policy/policy.fixture.ts'

const s3 = await catalogueOf('aws-s3')
const PATH_STYLE = 's3.eu-west-1.amazonaws.com'
const hostOf = (bucket: string) => `${bucket}.${PATH_STYLE}`

function isCovered(entry: Pick<Authority, 'paths' | 'locations'>, host: string, rawPath: string): boolean {
  const endpoint = s3.locate(inbound({ host, rawPath }))
  const authority = [{ type: 'call', operations: ['aws-s3:*'], ...entry } as Authority]
  return entriesFor(authority, endpoint.operation.name).some((one) => isPlaceOf(one, endpoint))
}

describe('a grant of paths in one bucket', () => {
  const reports = { paths: ['/reports/**'] }

  it('reaches it at either address', () => {
    for (const [host, path] of [
      [PATH_STYLE, '/reports/2026/a'],
      [hostOf('reports'), '/2026/a'],
      [hostOf('reports'), '/'],
      ['reports.s3.amazonaws.com', '/2026/a'],
      ['reports.s3.dualstack.eu-west-1.amazonaws.com', '/reports/a'],
    ] as const)
      expect([host, path, isCovered(reports, host, path)]).toEqual([host, path, true])
    expect(isCovered({ paths: ['/reports'] }, hostOf('reports'), '/')).toBe(true)
    expect(isCovered({ paths: ['/reports'] }, hostOf('reports'), '/a')).toBe(false)
  })

  it('reaches no other bucket by the name of a host', () => {
    for (const host of [hostOf('victim'), hostOf('a.reports'), 'victim.s3.amazonaws.com'])
      for (const path of ['/reports/2026/a', '/reports', '/'])
        expect([host, path, isCovered(reports, host, path)]).toEqual([host, path, false])
    expect(isCovered(reports, PATH_STYLE, '/victim/reports/a')).toBe(false)
  })

  it('means the path as it is sent where it names the host', () => {
    const pinned = { locations: [`https://${hostOf('reports')}`], paths: ['/2026/**'] }
    expect(isCovered(pinned, hostOf('reports'), '/2026/a')).toBe(true)
    expect(isCovered(pinned, hostOf('victim'), '/2026/a')).toBe(false)
  })
})

describe('the session policy of a grant', () => {
  const resourcesOf = (entry: Pick<Authority, 'paths' | 'locations'>) => {
    const authority = [{ type: 'call', operations: ['aws-s3:object.get'], ...entry } as Authority]
    const terms = { session_policy: 'grant', role_arn: 'arn:aws:iam::123456789012:role/x' } as const
    return JSON.parse(sessionPolicy(s3.service('aws-s3') as Service, { authority }, terms)).Statement[0].Resource
  }

  it('names the bucket that stands in the host', () => {
    expect(resourcesOf({ locations: [`https://${hostOf('reports')}`], paths: ['/2026/**'] })).toEqual([
      'arn:aws:s3:::reports/2026/*',
    ])
    expect(resourcesOf({ locations: [`https://${PATH_STYLE}`], paths: ['/reports/**'] })).toEqual([
      'arn:aws:s3:::reports/*',
    ])
  })

  it('takes no braces of a grant for a place of its own', () => {
    expect(resourcesOf({ paths: ['/{key}/victim/**'] })).toEqual(['arn:aws:s3:::{key}/victim/*'])
  })
})
