/**
 * The catalogue of upstream APIs: which service a request goes to, and as which operation. Built from service files at load;
 * locating a request is one map look-up, one walk down the segments of its path, and no regular expression.
 */

import { hash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { basename, isAbsolute, join } from 'node:path'
import canonicalize from 'canonicalize'
import { isOperationPattern, patternCovers } from '../protocol/authority.ts'
import type { Inbound } from '../protocol/message.ts'
import type { Endpoint, Service } from '../protocol/service.ts'
import { type Fault, throwFaults } from './fault.ts'
import { createLocator } from './locate.ts'
import { readService, readServiceText, type ServiceDescription, type ServiceFile } from './service-file.ts'
import { assembleService, type Site, UNMANAGED } from './site.ts'

export type { ServiceFile } from './service-file.ts'

export interface Catalogue {
  /** The services that settings select, without the pseudo service `unmanaged`. */
  readonly services: readonly Service[]
  /** SHA-256 over the selected descriptions in canonical form: what requests are taken for is part of what is decided. */
  readonly digest: string
  /** Every service that policies may name: the selected ones, the shipped ones, and `unmanaged`. */
  readonly vocabulary: readonly Service[]
  service(name: string): Service | undefined
  /**
   * Where a request goes and as which operation.
   * @throws {GatewayError} `method_refused`, `path_ambiguous`, `target_mismatch`, `host_unmanaged` (a port that the service does
   *   not have), `route_unknown`, `request_malformed`.
   */
  locate(inbound: Inbound): Endpoint
  /** Whether at least one operation matches the pattern: `github:*`, `github:issues.*`, `github:issues.read`. */
  knows(pattern: string): boolean
}

export interface CatalogueSource {
  /** Shipped names (`github`), paths of service files relative to `baseDir`, or descriptions in memory. */
  readonly services: readonly (string | ServiceFile)[]
  /** Directory of the shipped service files. */
  readonly shippedDir: string
  readonly baseDir: string
}

/** @throws {PolicyFaults} listing every problem in every service file. */
export async function loadCatalogue(source: CatalogueSource): Promise<Catalogue> {
  const faults: Fault[] = []
  const shipped = await shippedNames(source.shippedDir)
  const descriptions: ServiceDescription[] = []
  for (const entry of source.services) {
    const description = await describe(entry, source, shipped)
    if (Array.isArray(description)) faults.push(...description)
    else descriptions.push(description)
  }
  const selected = descriptions.map((description) => assembleService(description, faults))
  faults.push(...collisions(selected))
  throwFaults(faults)
  const taken = new Set(selected.map((site) => site.service.name))
  const dormant: Service[] = []
  for (const name of shipped.filter((candidate) => !taken.has(candidate))) {
    const description = await describe(name, source, shipped)
    if (Array.isArray(description)) faults.push(...description)
    else dormant.push(assembleService(description, faults).service)
  }
  throwFaults(faults)
  return assembleCatalogue(selected, dormant, hash('sha256', canonicalize(descriptions) ?? ''))
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

async function describe(
  entry: string | ServiceFile,
  source: CatalogueSource,
  shipped: readonly string[],
): Promise<ServiceDescription | Fault[]> {
  if (typeof entry !== 'string') return readService(entry, `service ${entry.name}`)
  const isName = !entry.includes('/') && !/\.ya?ml$/.test(entry)
  if (isName && !shipped.includes(entry)) {
    return [
      {
        where: 'services',
        got: entry,
        allowed: `${shipped.join(', ')}, or the path of a .yaml file`,
        fix: `correct the name, or write ./${entry}.yaml`,
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
  return faults
}

function assembleCatalogue(sites: readonly Site[], dormant: readonly Service[], digest: string): Catalogue {
  const services = sites.map((site) => site.service)
  const byName = new Map([...services, UNMANAGED].map((service) => [service.name, service]))
  const names = [...services, UNMANAGED].flatMap((service) => service.operations.map((operation) => operation.name))
  for (const service of services) names.push(`${service.name}:unlisted`)
  return {
    services,
    digest,
    vocabulary: [...services, ...dormant, UNMANAGED],
    service: (name) => byName.get(name),
    locate: createLocator(sites),
    knows: (pattern) => isOperationPattern(pattern) && names.some((name) => patternCovers(pattern, name)),
  }
}
