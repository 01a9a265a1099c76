/**
 * Which addresses and names are special, as data: the IANA special-purpose registries (RFC 6890 and its updates) and the credential
 * sources of clouds. Where a table has several rows for an address, the first counts.
 */

export type AddressClass =
  | 'public'
  | 'loopback'
  | 'private'
  | 'link-local'
  | 'cgnat'
  | 'multicast'
  | 'reserved'
  | 'metadata'
  | 'invalid'

export type Row = readonly [cidr: string, kind: AddressClass]

/** Credential sources of clouds. Some lie in public or private ranges; no setting ever opens them. */
export const METADATA: readonly Row[] = [
  ['169.254.169.254/32', 'metadata'], // AWS, Azure, Google, DigitalOcean, OpenStack, Oracle
  ['169.254.170.2/32', 'metadata'], // AWS ECS task credentials
  ['169.254.170.23/32', 'metadata'], // AWS EKS Pod Identity
  ['169.254.0.23/32', 'metadata'], // Tencent Cloud
  ['169.254.42.42/32', 'metadata'], // Scaleway
  ['100.100.100.200/32', 'metadata'], // Alibaba Cloud, inside the CGNAT range
  ['168.63.129.16/32', 'metadata'], // Azure wire server, a public address
  ['192.0.0.192/32', 'metadata'], // Oracle Cloud Classic
  ['fd00:ec2::/32', 'metadata'], // AWS: instances, EKS Pod Identity, time, names
  ['fd20:ce::254/128', 'metadata'], // Google Cloud
  ['fd00:c1::a9fe:a9fe/128', 'metadata'], // Oracle Cloud
  ['fd00:100::100:200/128', 'metadata'], // Alibaba Cloud
  ['fd00:a9fe:a9fe::1/128', 'metadata'], // Akamai (Linode)
  ['fd00:42::42/128', 'metadata'], // Scaleway
  ['fe80::a9fe:a9fe/128', 'metadata'], // OpenStack
]

/** Names under which clouds give out credentials. What they resolve to differs; whoever asks for them means no API. */
export const METADATA_NAMES: ReadonlySet<string> = new Set([
  'metadata',
  'metadata.google.internal',
  'metadata.goog',
  'metadata.azure.internal',
  'metadata.azure.com',
  'metadata.tencentyun.com',
  'metadata.packet.net',
  'metadata.platformequinix.com',
  'api.metadata.cloud.ibm.com',
  'rancher-metadata',
  'instance-data',
  'instance-data.ec2.internal',
])

/** IANA IPv4 Special-Purpose Address Registry. Everything else is public. */
export const SPECIAL_V4: readonly Row[] = [
  ['0.0.0.0/8', 'reserved'],
  ['10.0.0.0/8', 'private'],
  ['100.64.0.0/10', 'cgnat'],
  ['127.0.0.0/8', 'loopback'],
  ['169.254.0.0/16', 'link-local'],
  ['172.16.0.0/12', 'private'],
  ['192.0.0.0/24', 'reserved'],
  ['192.0.2.0/24', 'reserved'],
  ['192.88.99.0/24', 'reserved'], // withdrawn 6to4 relay anycast
  ['192.168.0.0/16', 'private'],
  ['198.18.0.0/15', 'reserved'],
  ['198.51.100.0/24', 'reserved'],
  ['203.0.113.0/24', 'reserved'],
  ['224.0.0.0/4', 'multicast'],
  ['240.0.0.0/4', 'reserved'],
]

/** IANA IPv6 Special-Purpose Address Registry. Only 2000::/3 outside these rows is public. */
export const SPECIAL_V6: readonly Row[] = [
  ['::1/128', 'loopback'],
  ['64:ff9b:1::/48', 'private'], // local-use NAT64
  ['fc00::/7', 'private'],
  ['fe80::/10', 'link-local'],
  ['fec0::/10', 'private'], // withdrawn site-local
  ['ff00::/8', 'multicast'],
  ['2001:0::/23', 'reserved'], // IETF protocol assignments; Teredo inside it is judged by what it embeds
  ['2001:db8::/32', 'reserved'],
  ['3fff::/20', 'reserved'],
  ['2000::/3', 'public'],
  ['::/0', 'reserved'],
]
