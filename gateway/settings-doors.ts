/**
 * Where the doors are, completed: absolute paths, TLS files that can be used, and what deserves a warning. Every problem is
 * reported, none stops the others from being found.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { controlSocketOf } from './data-directory.ts'
import type { ListenAddress, WrittenListen } from './settings-listen.ts'
import { absolutePath, readText, type Surroundings } from './settings-parts.ts'
import type { WrittenSettings } from './settings-schema.ts'

export interface Doors {
  /** Default 127.0.0.1:8080. */
  readonly proxy: ListenAddress
  /** As agents see it, no trailing slash. Undefined: `http://<proxy>`, with the port that is listened on. */
  readonly proxyUrl?: string
  /** Default 127.0.0.1:8081. */
  readonly control: ListenAddress
  /** Absolute PEM files, read anew when they change. Undefined: the control door speaks plain HTTP. */
  readonly controlTls?: { readonly cert: string; readonly key: string; readonly clientCa: readonly string[] }
  /** Absolute, at most 103 bytes (`sun_path`). Default `<dataDir>/control.sock`. */
  readonly controlSocket: string
}

export function doorsOf(written: WrittenListen, dataDir: string, around: Surroundings): Doors {
  const controlSocket =
    written.control_socket === undefined ? controlSocketOf(dataDir) : absolutePath(written.control_socket, around)
  checkSocketPath(controlSocket, around)
  return {
    proxy: written.proxy ?? { host: '127.0.0.1', port: 8080 },
    ...(written.proxy_url !== undefined && { proxyUrl: written.proxy_url }),
    control: written.control ?? { host: '127.0.0.1', port: 8081 },
    ...(written.control_tls && { controlTls: controlTlsOf(written.control_tls, around) }),
    controlSocket,
  }
}

type WrittenTls = NonNullable<WrittenListen['control_tls']>

function controlTlsOf(written: WrittenTls, around: Surroundings): NonNullable<Doors['controlTls']> {
  const cert = absolutePath(written.cert, around)
  const key = absolutePath(written.key, around)
  const clientCa = (written.client_ca ?? []).map((file) => absolutePath(file, around))
  const certificate = certificateIn(cert, ['cert'], around)
  clientCa.forEach((file, index) => {
    certificateIn(file, ['client_ca', String(index)], around)
  })
  const fault = keyFault(key, certificate)
  if (fault !== undefined)
    around.report(['listen', 'control_tls', 'key'], {
      got: fault,
      allowed: 'the PEM private key of listen.control_tls.cert, without a passphrase',
      fix: 'correct the path, or write the key there',
    })
  return { cert, key, clientCa }
}

function certificateIn(file: string, place: readonly string[], around: Surroundings): X509Certificate | undefined {
  const pem = readText(file)
  try {
    return new X509Certificate(pem ?? '')
  } catch {
    around.report(['listen', 'control_tls', ...place], {
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
    if (!isLoopback(doors[door].host) && !(door === 'control' && doors.controlTls))
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
