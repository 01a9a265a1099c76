/** The part of the composition root that reaches a source of policies: gives it its way out, its secrets and its place on disk. */
import { join } from 'node:path'
import { directorySource } from '../policy/source/dir.ts'
import { gitSource } from '../policy/source/git.ts'
import { httpSource } from '../policy/source/http.ts'
import type { Source } from '../policy/source/source.ts'
import { Supply } from '../policy/supply.ts'
import type { Clock } from '../protocol/clock.ts'
import { basicAuthorization, createReader } from '../provider/reader.ts'
import type { ReadSecret } from '../provider/reference.ts'
import type { PolicySourceSettings } from '../settings/policy.ts'
import type { Settings } from '../settings.ts'
import type { Upstream } from '../upstream/forward.ts'

export interface Ways {
  readonly clock: Clock
  readonly fetchFor: Upstream['fetchFor']
  readonly readSecret: ReadSecret
}

/** Undefined: settings name none. Nothing is asked yet. */
export function openSupply({ policy, dataDir }: Settings, ways: Ways): Supply | undefined {
  if (policy.source === undefined) return undefined
  const dir = join(dataDir, 'policy')
  const source = sourceOf(policy.source.from, dir, ways)
  return new Supply({ source, path: join(dir, 'in-force.json'), clock: ways.clock }, policy.source)
}

function sourceOf(from: PolicySourceSettings, dir: string, { fetchFor, readSecret }: Ways): Source {
  if ('dir' in from) return directorySource(from.dir)
  if ('url' in from) {
    const { url, headers = {}, addresses = [] } = from
    const reader = () => createReader({ fetch: fetchFor(addresses), headers, readSecret })
    let read: ReturnType<typeof createReader> | undefined
    return httpSource(url, (at, o) => {
      read ??= reader() // what fetches is built after the policies
      return read(at, o)
    })
  }
  const { url, ref, path, token, user = 'git', ssh_key: key, known_hosts: knownHosts, ca } = from.git
  return gitSource(
    {
      ...{ url, ref, path },
      ...(token && { authorization: () => basicAuthorization(user, token, readSecret) }),
      ...(key !== undefined && knownHosts !== undefined && { ssh: { key, knownHosts } }),
      ...(ca !== undefined && { ca }),
    },
    join(dir, 'git'),
  )
}
