/**
 * The catalogue of upstream APIs: which service a request goes to, and as which operation. Built from service files at load;
 * locating a request is one map look-up, one walk down the segments of its path, and no regular expression.
 */

import { hash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { basename, isAbsolute, join } from 'node:path'
import canonicalize from 'canonicalize'
import { isOperationPattern, patternCovers } from '../../protocol/authority.ts'
import { isHostPattern, overlap, parseHostPattern } from '../../protocol/host-pattern.ts'
import type { Destination, Inbound } from '../../protocol/message.ts'
import { nearest } from '../../protocol/nearest.ts'
import type { Endpoint, Service } from '../../protocol/service.ts'
import { type Fault, throwFaults } from '../fault.ts'
import { atExample, instanceOf } from '../instance.ts'
import type { Selection } from '../selection.ts'
import { createLocator } from './locate.ts'
import { readService, readServiceText, type ServiceDescription, type ServiceFile } from './service-file.ts'
import { assembleService, type Site, UNMANAGED } from './site.ts'
import { createVeil } from './veil.ts'

export type { ServiceFile } from './service-file.ts'

export interface Catalogue {
  /** The services that settings select, without the pseudo service `unmanaged`. */
  readonly services: readonly Service[]
  /** SHA-256 over the selected descriptions in canonical form: what requests are taken for is part of what is decided. */
  readonly digest: string
  /** Names of the shipped service files. */
  readonly shipped: readonly string[]
  /**
   * The services that a schema for these policies needs: the selected ones, `unmanaged`, and of the shipped ones those whose
   * operations stand in the text. The others are not even read: that would be most of the time to start.
   * @param faults gets what is wrong with a file that is read.
   */
  spokenOf(policies: string, faults: Fault[]): Promise<readonly Service[]>
  service(name: string): Service | undefined
  /**
   * Where a request goes and as which operation.
   * @throws {GatewayError} `method_refused`, `path_ambiguous`, `target_mismatch`, `host_unmanaged` (a port that the service does
   *   not have), `route_unknown`, `request_malformed`.
   */
  locate(inbound: Destination): Endpoint
  /** The request as it may be recorded (`veil.ts`). */
  veiled(inbound: Inbound): Inbound
  /** Whether at least one operation matches the pattern: `github:*`, `github:issues.*`, `github:issues.read`. */
  knows(pattern: string): boolean
}

export interface CatalogueSource {
  /** Shipped names (`github`), paths of service files relative to `baseDir`, either with more about it, or descriptions in memory. */
  readonly services: readonly (string | Selection | ServiceFile)[]
  /** Directory of the shipped service files. */
  readonly shippedDir: string
  readonly baseDir: string
  /** Take a service without hosts to be at its example: enough to check it by. Default: settings have to say where. */
  readonly atExamples?: boolean
}

/** @throws {PolicyFaults} listing every problem in every service file. */
export async function loadCatalogue(source: CatalogueSource): Promise<Catalogue> {
  const faults: Fault[] = []
  const shipped = await shippedNames(source.shippedDir)
  const descriptions: ServiceDescription[] = []
  for (const entry of source.services) {
    const described = await describe(entry, source, shipped)
    const description = Array.isArray(described)
      ? described
      : instanceOf(source.atExamples ? atExample(described) : described, selectionIn(entry))
    if (Array.isArray(description)) faults.push(...description)
    else descriptions.push(description)
  }
  const selected = descriptions.map((description) => assembleService(description, faults))
  faults.push(...collisions(selected))
  throwFaults(faults)
  const digest = hash('sha256', canonicalize(descriptions) ?? '')
  return assembleCatalogue(selected, digest, { source, shipped })
}

async function shippedNames(dir: string): Promise<string[]> {
  try {
    const files = await readdir(dir)
    return files
      .filter((file) => file.endsWith('.yaml'))
      .map((file) => basename(file, '.yaml'))
      .sort()
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw cause
  }
}

function selectionIn(entry: string | Selection | ServiceFile): Selection {
  if (typeof entry === 'string') return { use: entry }
  return 'use' in entry ? entry : { use: entry.name }
}

async function describe(
  written: string | Selection | ServiceFile,
  source: CatalogueSource,
  shipped: readonly string[],
): Promise<ServiceDescription | Fault[]> {
  if (typeof written !== 'string' && !('use' in written)) return readService(written, `service ${written.name}`)
  const entry = typeof written === 'string' ? written : written.use
  const isName = !entry.includes('/') && !/\.ya?ml$/.test(entry)
  if (isName && !shipped.includes(entry)) {
    const meant = nearest(entry, shipped)
    return [
      {
        where: 'services',
        got: entry,
        allowed: `${shipped.join(', ')}, or the path of a .yaml file`,
        fix: `${meant === undefined ? 'correct the name' : `did you mean ${meant}?`} For a file of your own write ./${entry}.yaml`,
      },
    ]
  }
  const path = isName
    ? join(source.shippedDir, `${entry}.yaml`)
    : isAbsolute(entry)
      ? entry
      : join(source.baseDir, entry)
  try {
    return readServiceText(await readFile(path, 'utf8'), isName ? `services/${entry}.yaml` : entry)
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? 'an error'
    return [
      {
        where: 'services',
        got: `${entry} (${code})`,
        allowed: 'a service file that can be read',
        fix: 'correct the path or the file mode',
      },
    ]
  }
}

/** Two services under one name or at one place could not be told apart. */
function collisions(sites: readonly Site[]): Fault[] {
  const faults: Fault[] = []
  const owners = new Map<string, string>()
  for (const { service } of sites) {
    const places = service.hosts.flatMap((host) => service.ports.map((port) => `the place ${host}:${port}`))
    for (const claim of [`the name ${service.name}`, ...places]) {
      const owner = owners.get(claim)
      if (owner === undefined) owners.set(claim, service.name)
      else
        faults.push({
          where: `service ${service.name}`,
          got: `${claim}, which service ${owner} has`,
          allowed: 'names and places of one service only',
          fix: 'remove one of the two',
        })
    }
  }
  return [...faults, ...overlaps(sites)]
}

/** A host that two patterns match could be taken for either. */
function overlaps(sites: readonly Site[]): Fault[] {
  const patterns = sites.flatMap(({ service }) =>
    service.hosts.flatMap((host) => {
      const pattern = isHostPattern(host) ? parseHostPattern(host) : undefined
      return pattern === undefined ? [] : [{ pattern, service }]
    }),
  )
  return patterns.flatMap(({ pattern, service }, i) =>
    patterns
      .slice(0, i)
      .filter((other) => overlap(other.pattern, pattern))
      .map((other) => ({
        where: `service ${service.name}: hosts`,
        got: `${pattern.text}, which a host of ${other.pattern.text} (service ${other.service.name}) can match too`,
        allowed: 'patterns of which no host matches two',
        fix: 'write more fixed labels into one of them, or name its hosts one by one',
      })),
  )
}

interface Shelf {
  readonly source: CatalogueSource
  readonly shipped: readonly string[]
}

function assembleCatalogue(sites: readonly Site[], digest: string, { source, shipped }: Shelf): Catalogue {
  const services = sites.map((site) => site.service)
  const byName = new Map([...services, UNMANAGED].map((service) => [service.name, service]))
  const names = [...services, UNMANAGED].flatMap((service) => service.operations.map((operation) => operation.name))
  for (const service of services) names.push(`${service.name}:unlisted`)
  return {
    services,
    digest,
    shipped,
    async spokenOf(policies, faults) {
      const others = shipped.filter((name) => !byName.has(name) && policies.includes(`"${name}:`))
      const described = await Promise.all(others.map((name) => describe(name, source, shipped)))
      const dormant = described.flatMap((one) => {
        if (!Array.isArray(one)) return [assembleService(atExample(one), faults).service]
        faults.push(...one)
        return []
      })
      return [...services, ...dormant, UNMANAGED]
    },
    service: (name) => byName.get(name),
    locate: createLocator(sites),
    veiled: createVeil(sites.map((site) => site.service)),
    knows: (pattern) => isOperationPattern(pattern) && names.some((name) => patternCovers(pattern, name)),
  }
}
