/**
 * Name constraints of an authority (RFC 5280 §4.2.1.10): for which hosts the verifiers of agents accept what it signs. Whoever
 * steals a constrained key can impersonate those hosts to agents, and nobody else.
 */
import '../protocol/reflect.ts'
import { isIP } from 'node:net'
import { AsnConvert } from '@peculiar/asn1-schema'
import { GeneralName, GeneralSubtree, GeneralSubtrees, NameConstraints } from '@peculiar/asn1-x509'
import { Extension, type X509Certificate } from '@peculiar/x509'
import ipaddr from 'ipaddr.js'

const NAME_CONSTRAINTS = '2.5.29.30'
/** RFC 6761 §6.4: a name that nobody has. A form without any permitted name would not be constrained at all. */
const NO_HOST = 'keyless.invalid'
/** All addresses, as the CA/Browser Forum has them excluded where none is permitted (Baseline Requirements §7.1.5). */
const ALL_ADDRESSES = ['0.0.0.0/0', '::/0']

/** The critical extension that permits these hosts, names below them included, and nothing else. */
export function constrainTo(hosts: readonly string[]): Extension {
  const names = hosts.filter((host) => isIP(host) === 0)
  const addresses = hosts.filter((host) => isIP(host) !== 0).map((host) => `${host}/${isIP(host) === 4 ? 32 : 128}`)
  const dns = (names.length > 0 ? names : [NO_HOST]).map((dNSName) => new GeneralName({ dNSName }))
  const ip = (ranges: readonly string[]) => ranges.map((iPAddress) => new GeneralName({ iPAddress }))
  const constraints = new NameConstraints({
    permittedSubtrees: subtrees([...dns, ...ip(addresses)]),
    ...(addresses.length === 0 && { excludedSubtrees: subtrees(ip(ALL_ADDRESSES)) }),
  })
  return new Extension(NAME_CONSTRAINTS, true, AsnConvert.serialize(constraints))
}

/** The way back from `constrainTo`. */
export function hostsOf({ permitted }: Constraints): string[] {
  return permitted.filter((base) => base !== NO_HOST).map((base) => base.replace(/\/.*/, ''))
}

function subtrees(names: readonly GeneralName[]): GeneralSubtrees {
  return new GeneralSubtrees(names.map((base) => new GeneralSubtree({ base })))
}

export interface Constraints {
  /** Permitted names and ranges as the certificate has them, sorted. */
  readonly permitted: readonly string[]
  /** Whether verifiers accept this host name or IP address. */
  permits(host: string): boolean
}

/** What a certificate is constrained to; undefined: to nothing. @throws Error when the extension cannot be read. */
export function constraintsOf(certificate: X509Certificate): Constraints | undefined {
  const extension = certificate.getExtension(NAME_CONSTRAINTS)
  if (extension === null) return undefined
  const { permittedSubtrees, excludedSubtrees } = AsnConvert.parse(extension.value, NameConstraints)
  const permitted = bases(permittedSubtrees)
  const excluded = bases(excludedSubtrees)
  return {
    permitted: permitted.map(({ text }) => text).sort(),
    permits(host) {
      const form = isIP(host) === 0 ? 'dns' : 'ip'
      const covers = ({ text }: Base) => (form === 'dns' ? isBelow(text, host) : isWithin(text, host))
      const applying = permitted.filter((base) => base.form === form)
      const isExcluded = excluded.some((base) => base.form === form && covers(base))
      return !isExcluded && (applying.length === 0 || applying.some(covers))
    },
  }
}

interface Base {
  readonly form: 'dns' | 'ip'
  readonly text: string
}

/** Names of other forms (directories, mail) say nothing of hosts. */
function bases(list: GeneralSubtrees | undefined): Base[] {
  return [...(list ?? [])].flatMap(({ base: { dNSName, iPAddress } }): Base[] => {
    if (dNSName !== undefined) return [{ form: 'dns', text: dNSName.toLowerCase() }]
    return iPAddress === undefined ? [] : [{ form: 'ip', text: iPAddress }]
  })
}

/** RFC 5280: labels may be added on the left; a base with a leading dot, as some authorities write it, wants at least one. */
function isBelow(base: string, host: string): boolean {
  return base === '' || host === base || host.endsWith(base.startsWith('.') ? base : `.${base}`)
}

function isWithin(range: string, host: string): boolean {
  const [network, bits] = ipaddr.parseCIDR(range)
  const address = ipaddr.parse(host)
  return network.kind() === address.kind() && address.match(network as never, bits)
}
