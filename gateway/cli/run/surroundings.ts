/** Everything that a command finds around it under `keyless run`: files, ports and variables, layer by layer. */
import type { StatusView } from '../../protocol/control-status.ts'
import { writeBundle } from './bundle.ts'
import { childEnvironment, ownVariables, preloadVariables } from './environment.ts'
import type { Forwarder } from './forwarder.ts'
import { prepareJava } from './java.ts'
import { writeShims } from './shims.ts'
import { writeToolFiles } from './tool-files.ts'

export interface SurroundingsOptions {
  readonly status: Pick<StatusView, 'ca_pem' | 'services' | 'secret_env'>
  readonly forwarder: Forwarder
  readonly inherited: Readonly<Record<string, string | undefined>>
  /** @see JavaOptions.isWanted */
  readonly java?: boolean | undefined
  /** Lead Node and Python by their preloads. Default true. */
  readonly preload?: boolean
  /** Give emptied environments back. Default true. */
  readonly shims?: boolean
}

export interface Surroundings {
  readonly env: Record<string, string>
  /** PEM bundle of the run, and the certificates in it. */
  readonly trust: { readonly file: string; readonly certificates: readonly string[] }
  /** Remove the files. Safe to call twice. */
  remove(): Promise<void>
}

export async function openSurroundings(options: SurroundingsOptions): Promise<Surroundings> {
  const bundle = await writeBundle(options.status.ca_pem, options.inherited)
  try {
    const trust = { file: bundle.files.ca, certificates: bundle.certificates }
    return { env: await environmentIn(bundle, options), trust, remove: bundle.remove }
  } catch (cause) {
    await bundle.remove()
    throw cause
  }
}

async function environmentIn(
  { dir, files, certificates }: Awaited<ReturnType<typeof writeBundle>>,
  { status, forwarder, inherited, java, preload = true, shims = true }: SurroundingsOptions,
): Promise<Record<string, string>> {
  const { services, secret_env: secretEnv } = status
  const [tools, forJava] = await Promise.all([
    writeToolFiles({ dir, services, inherited, proxyUrl: forwarder.url, ca: status.ca_pem }),
    prepareJava({ isWanted: java, inherited, dir, certificates, forwarder }),
  ])
  const placeholders = Object.assign({}, ...services.map((service) => service.placeholders)) as Record<string, string>
  const layers = { ...(preload && preloadVariables(inherited)), ...tools, ...forJava }
  const wanted = { inherited, proxyUrl: forwarder.url, files, layers, placeholders, secretEnv }
  const own = ownVariables(wanted)
  const first = shims ? await writeShims(dir, inherited.PATH ?? '', own) : ''
  return childEnvironment(wanted, own, first)
}
