/**
 * Where the doors are, completed: absolute paths, TLS files that can be used, and what deserves a warning. Every problem is
 * reported, none stops the others from being found.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { absolutePath, readText, type Surroundings } from './around.ts'
import { controlSocketOf } from './data-directory.ts'
import type { ListenAddress, WrittenListen } from './listen.ts'
import type { WrittenSettings } from './schema.ts'

/** Absolute PEM files, read anew when they change. */
interface TlsDoor {
  readonly cert: string
  readonly key: string
  readonly clientCa: readonly string[]
}

export interface Doors {
  /** Default 127.0.0.1:8080. */
  readonly proxy: ListenAddress
  /** As agents see it, no trailing slash. Undefined: `http://<proxy>`, `https://` with `proxyTls`, with the port that is listened on. */
  readonly proxyUrl?: string
  /** Undefined: the proxy door speaks plain HTTP. */
  readonly proxyTls?: TlsDoor & { readonly require?: 'svid' }
  /** CIDR ranges of the balancers that send a PROXY protocol header. Undefined: nobody may. */
  readonly announcedBy?: readonly string[]
  /** Default 127.0.0.1:8081. */
  readonly control: ListenAddress
  /** Undefined: the control door speaks plain HTTP. */
  readonly controlTls?: TlsDoor
  /** Absolute, at most 103 bytes (`sun_path`). Default `<dataDir>/control.sock`. */
  readonly controlSocket: string
}

export function doorsOf(
  { listen: written = {}, trust }: WrittenSettings,
  dataDir: string,
  around: Surroundings,
): Doors {
  const controlSocket =
    written.control_socket === undefined ? controlSocketOf(dataDir) : absolutePath(written.control_socket, around)
  checkSocketPath(controlSocket, around)
  if (written.proxy_tls?.require === 'svid' && !trust?.x509?.length)
    around.report(['listen', 'proxy_tls', 'require'], {
      got: 'svid, where no trust domain is configured',
      allowed: 'svid together with trust.x509',
      fix: 'add the trust domain of your agents under trust.x509, or leave require out',
    })
  return {
    proxy: written.proxy ?? { host: '127.0.0.1', port: 8080 },
    ...(written.proxy_url !== undefined && { proxyUrl: written.proxy_url }),
    ...(written.proxy_tls && { proxyTls: proxyTlsOf(written.proxy_tls, around) }),
    ...(written.proxy_protocol && { announcedBy: written.proxy_protocol.from }),
    control: written.control ?? { host: '127.0.0.1', port: 8081 },
    ...(written.control_tls && { controlTls: tlsOf(written.control_tls, 'control_tls', around) }),
    controlSocket,
  }
}

type WrittenTls = NonNullable<WrittenListen['control_tls']>
type TlsName = 'control_tls' | 'proxy_tls'

function proxyTlsOf(
  written: NonNullable<WrittenListen['proxy_tls']>,
  around: Surroundings,
): Doors['proxyTls'] & object {
  return { ...tlsOf(written, 'proxy_tls', around), ...(written.require && { require: written.require }) }
}

function tlsOf(written: WrittenTls, name: TlsName, around: Surroundings): TlsDoor {
  const cert = absolutePath(written.cert, around)
  const key = absolutePath(written.key, around)
  const clientCa = (written.client_ca ?? []).map((file) => absolutePath(file, around))
  const certificate = certificateIn(cert, [name, 'cert'], around)
  clientCa.forEach((file, index) => {
    certificateIn(file, [name, 'client_ca', String(index)], around)
  })
  const fault = keyFault(key, certificate)
  if (fault !== undefined)
    around.report(['listen', name, 'key'], {
      got: fault,
      allowed: `the PEM private key of listen.${name}.cert, without a passphrase`,
      fix: 'correct the path, or write the key there',
    })
  return { cert, key, clientCa }
}

function certificateIn(file: string, place: readonly string[], around: Surroundings): X509Certificate | undefined {
  const pem = readText(file)
  try {
    return new X509Certificate(pem ?? '')
  } catch {
    around.report(['listen', ...place], {
      got: pem === undefined ? `no readable file ${file}` : `no certificate in ${file}`,
      allowed: 'a PEM file with certificates',
      fix: 'correct the path',
    })
    return undefined
  }
}

function keyFault(file: string, certificate: X509Certificate | undefined): string | undefined {
  const pem = readText(file)
  if (pem === undefined) return `no readable file ${file}`
  try {
    const belongs = certificate?.checkPrivateKey(createPrivateKey(pem)) ?? true
    return belongs ? undefined : `the key of another certificate in ${file}`
  } catch {
    return `no private key that can be read in ${file}`
  }
}

function checkSocketPath(path: string, around: Surroundings): void {
  // sun_path holds 104 bytes on macOS and 108 on Linux, with the closing zero; a longer path is cut silently by some systems.
  const length = Buffer.byteLength(path)
  if (length <= 103) return
  around.report(['listen', 'control_socket'], {
    got: `${length} bytes: ${path}`,
    allowed: 'at most 103 bytes',
    fix: 'write a shorter path, like /run/keyless/control.sock',
  })
}

export function warningsOf(written: WrittenSettings, doors: Doors): string[] {
  const warnings: string[] = []
  if (!written.services?.length)
    warnings.push('No services are configured, so every host is refused. Name one under `services`.')
  for (const door of ['proxy', 'control'] as const) {
    if (!isLoopback(doors[door].host) && !doors[`${door}Tls`])
      warnings.push(
        `listen.${door} is ${doors[door].host}:${doors[door].port}: other machines can reach this door, and it speaks plain HTTP.`,
      )
  }
  if (written.audit?.durability === 'relaxed')
    warnings.push('audit.durability is relaxed: a power cut may lose the last records.')
  return warnings
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host)
}
