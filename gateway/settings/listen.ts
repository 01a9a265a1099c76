/** The part `listen` of settings as people write it: where the doors are. `settings/doors.ts` completes it. */
import { isIP } from 'node:net'
import { z } from 'zod'
import { parseCidr } from '../protocol/cidr.ts'
import { read } from './advice.ts'

export interface ListenAddress {
  /** Host name or address to bind, no brackets. */
  readonly host: string
  /** 0 lets the system choose. */
  readonly port: number
}

/** `host:port`, `[v6]:port`, `:port` or a port alone. Without a host it is loopback: reaching further must be written out. */
export function parseListen(text: string): ListenAddress | null {
  const match = /^(?:(?:\[([0-9a-f:.]+)\]|([^:[\]\s]*)):)?(\d{1,5})$/i.exec(text)
  if (!match) return null
  const port = Number(match[3])
  if (port > 65535) return null
  const host = match[1] ?? match[2] ?? ''
  if (match[1] !== undefined && isIP(match[1]) !== 6) return null
  return { host: host === '' ? '127.0.0.1' : host, port }
}

const listenAddress = (port: number) =>
  z.union([z.string(), z.number()]).transform(
    read((value: string | number) => parseListen(String(value)), {
      allowed: '`host:port`, `[IPv6]:port`, or a port alone (loopback)',
      fix: `write "127.0.0.1:${port}"`,
    }),
  )

/** In front of the host, or among the parameters, where drivers of databases read it as well. */
export function hasPassword(url: URL): boolean {
  return url.password !== '' || [...url.searchParams.keys()].some((name) => /passw/i.test(name))
}

/** An http(s) URL as a prefix: without trailing slash. */
export function cleanUrl(text: string): string | null {
  if (!URL.canParse(text)) return null
  const url = new URL(text)
  const plain = (url.protocol === 'http:' || url.protocol === 'https:') && url.search === '' && url.hash === ''
  return plain && url.username === '' && url.password === '' ? text.replace(/\/+$/, '') : null
}

const path = () => z.string().min(1)

const certificateAndKey = {
  cert: path().describe('PEM file: certificate of the door, and the intermediates below its root.'),
  key: path().describe('PEM file: private key of that certificate, without a passphrase.'),
  client_ca: z
    .array(path())
    .optional()
    .describe(
      'PEM files with CAs that clients are told of, so that they send the right certificate. Which are believed, trust.x509 says. Default none.',
    ),
}

const controlTls = z
  .strictObject(certificateAndKey)
  .describe(
    'TLS 1.2 or newer on listen.control, with which clients may show an X.509-SVID. Default plain HTTP. Renewed files are taken over within a minute.',
  )

const proxyTls = z
  .strictObject({
    ...certificateAndKey,
    require: z
      .enum(['svid'])
      .optional()
      .describe(
        'svid: requests are served only on connections that show an X.509-SVID of trust.x509; plain HTTP is then refused from this machine too. Default: certificates are optional, and prove what certificate-bound grants ask for.',
      ),
  })
  .describe(
    'TLS 1.2 or newer on listen.proxy. Plain HTTP and SOCKS5 are then only taken from this machine. Default plain HTTP. Renewed files are taken over within a minute.',
  )

const range = z.string().refine((text) => parseCidr(text) !== undefined, {
  params: { allowed: 'a range of addresses (CIDR)', fix: 'write an address and a prefix length, like 10.0.0.7/32' },
})

const proxyProtocol = z
  .strictObject({
    from: z
      .array(range)
      .min(1)
      .describe('CIDR ranges of the balancers. They must send the header, version 1 or 2; nobody else may.'),
  })
  .describe(
    'Balancers in front of listen.proxy that say whose connection it is. Their word is the address in policy and record. Default: none.',
  )

export const listenSchema = z
  .strictObject({
    proxy: listenAddress(8080)
      .optional()
      .describe(
        'Where agents connect. Default 127.0.0.1:8080. Write 0.0.0.0:8080 to serve other machines; without listen.proxy_tls only inside a network that you trust.',
      ),
    proxy_url: z
      .string()
      .transform(
        read(cleanUrl, {
          allowed: 'an http(s) URL without user, query or fragment',
          fix: 'write "https://proxy.keyless.example.com"',
        }),
      )
      .optional()
      .describe(
        'Where agents find the proxy door: what DPoP proofs on reverse routes are about. Default http://<listen.proxy>, https:// with listen.proxy_tls.',
      ),
    proxy_tls: proxyTls.optional(),
    proxy_protocol: proxyProtocol.optional(),
    control: listenAddress(8081)
      .optional()
      .describe(
        'OAuth endpoints, health, keys and metadata over TCP. Default 127.0.0.1:8081. Tasks are opened only over the unix socket.',
      ),
    control_socket: path()
      .optional()
      .describe(
        'Unix socket of the control door, mode 0600: whoever can open it acts as the local human. Default <data_dir>/control.sock.',
      ),
    control_tls: controlTls.optional(),
  })
  .describe('Doors. Loopback unless another address is written out.')

export type WrittenListen = z.output<typeof listenSchema>
