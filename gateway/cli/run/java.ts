/**
 * What a Java process needs: it reads no proxy variable and no PEM bundle, and cannot send credentials to a proxy. So it gets
 * system properties, a trust store, and a port of the forwarder that asks for no password.
 */
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import type { Forwarder } from './forwarder.ts'
import { KNOWS_PEERS } from './forwarder-peer.ts'
import { javaTrustStore } from './java-trust-store.ts'

export interface JavaOptions {
  /** true: even where the port cannot be kept to this user. Default: where there is a Java, and the port can. */
  readonly isWanted: boolean | undefined
  readonly inherited: Readonly<Record<string, string | undefined>>
  /** Of this run. */
  readonly dir: string
  /** PEM, one certificate each. */
  readonly certificates: readonly string[]
  readonly forwarder: Pick<Forwarder, 'openUnlocked'>
}

/** @returns `JAVA_TOOL_OPTIONS`, which every JVM reads and mentions on stderr; nothing where no Java is to be served. */
export async function prepareJava(options: JavaOptions): Promise<Record<string, string>> {
  const { inherited, dir, forwarder } = options
  if (!(options.isWanted ?? (KNOWS_PEERS && hasJava(inherited)))) return {}
  const trustStore = join(dir, 'ca.jks')
  await writeFile(trustStore, javaTrustStore(options.certificates, Date.now()), { mode: 0o600 })
  const port = await forwarder.openUnlocked(!KNOWS_PEERS)
  const own = [
    '-Dhttp.proxyHost=127.0.0.1',
    `-Dhttp.proxyPort=${port}`,
    '-Dhttps.proxyHost=127.0.0.1',
    `-Dhttps.proxyPort=${port}`,
    '-Dhttp.nonProxyHosts=localhost|127.*|[::1]',
    `-Djavax.net.ssl.trustStore=${trustStore}`,
    '-Djdk.http.auth.tunneling.disabledSchemes=',
  ]
  // Of a property that is given twice the last one counts.
  const parts = [inherited.JAVA_TOOL_OPTIONS ?? '', ...own.map((part) => (/\s/.test(part) ? `"${part}"` : part))]
  return { JAVA_TOOL_OPTIONS: parts.join(' ').trim() }
}

function hasJava({ JAVA_HOME, PATH = '' }: JavaOptions['inherited']): boolean {
  const places = [...(JAVA_HOME ? [join(JAVA_HOME, 'bin')] : []), ...PATH.split(delimiter)]
  return places.some((place) => place !== '' && existsSync(join(place, 'java')))
}
