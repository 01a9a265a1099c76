/** A described service as settings have it: under their name, at their hosts, with their credential. */

import { parsePattern } from './catalogue/pattern.ts'
import type { ServiceDescription } from './catalogue/service-file.ts'
import type { Fault } from './fault.ts'
import type { Selection } from './selection.ts'

/** @returns the description to serve, or what the settings must say. */
export function instanceOf(description: ServiceDescription, { use, ...own }: Selection): ServiceDescription | Fault[] {
  const { name, hosts, instance } = description
  if (own.hosts === undefined && hosts.length === 0) return [hostsWanted(use, description)]
  if (own.hosts !== undefined && instance === undefined) return [hostsRefused(use, description)]
  const credential = own.credential ?? own.as ?? description.credential
  return {
    ...description,
    name: own.as ?? name,
    hosts: own.hosts ?? hosts,
    addresses: own.addresses ?? description.addresses,
    operations: labelled(
      own.hosts === undefined ? description.operations : withoutHosts(description.operations, hosts),
      own.labels ?? [],
    ),
    ...(credential !== undefined && { credential }),
  }
}

/** A service without hosts as if it were at its example: enough to name its operations, and to check it by. */
export function atExample(description: ServiceDescription): ServiceDescription {
  const { hosts, instance } = description
  return hosts.length === 0 && instance !== undefined ? { ...description, hosts: [instance] } : description
}

/** What the public offering has at further hosts, an instance does not have. */
function withoutHosts(operations: ServiceDescription['operations'], gone: readonly string[]) {
  const isHere = (text: string) => {
    const pattern = parsePattern(text)
    return typeof pattern === 'string' || pattern.host === undefined || !gone.includes(pattern.host)
  }
  return Object.fromEntries(
    Object.entries(operations).map(([id, operation]) => [id, { ...operation, match: operation.match.filter(isHere) }]),
  )
}

function labelled(operations: ServiceDescription['operations'], added: readonly string[]) {
  if (added.length === 0) return operations
  return Object.fromEntries(
    Object.entries(operations).map(([id, operation]) => [
      id,
      { ...operation, labels: [...new Set([...(operation.labels ?? []), ...added])] },
    ]),
  )
}

function hostsWanted(use: string, { title, instance }: ServiceDescription): Fault {
  return {
    where: 'services',
    got: `${use} without hosts`,
    allowed: `your own host of ${title}: each customer has another`,
    fix: `write { use: ${use}, hosts: [${instance}] }, with your host`,
  }
}

function hostsRefused(use: string, { title, hosts }: ServiceDescription): Fault {
  return {
    where: 'services',
    got: `hosts for ${use}`,
    allowed: `no hosts: ${title} is at ${hosts.join(', ')} for everybody`,
    fix: 'remove hosts, or write a service file of your own',
  }
}
