/** `keyless ca`: the roots that agents must trust: which there are, a new one, and all of them in a file. */
import { resolve } from 'node:path'
import { Command } from 'commander'
import type { RootView } from '../protocol/root-view.ts'

export interface CaWork {
  /** The roots in a directory, the one that signs first. */
  view(dir: string): Promise<readonly RootView[]>
  /** Adds a root; with `isNow` it takes the place of all others. */
  rotate(dir: string, isNow: boolean): Promise<void>
  /** The roots of client certificates, the oldest first; the first one is made if there is none. `isRotated`: after another one was added. */
  clients(dir: string, isRotated: boolean): Promise<readonly ClientRootView[]>
}

/** A root of the certificates that upstreams are shown. */
export interface ClientRootView {
  readonly pem: string
  readonly subject: string
  readonly fingerprint: string
  readonly isSigning: boolean
  readonly signsFrom: Date
  readonly validTo: Date
}

interface Where {
  readonly dir?: string
  readonly config?: string
}

export function caCommand({ view, rotate, clients }: CaWork): Command {
  const show = located('show', 'the CA certificates that agents must trust, and which of them signs')
    .option('--json', 'as JSON')
    .action(async (options: Where & { readonly json?: boolean }) => {
      const roots = await view(await directoryOf(options))
      process.stdout.write(options.json ? `${JSON.stringify(roots, null, 2)}\n` : roots.map(paragraph).join('\n'))
    })
  const rotateCommand = located('rotate', 'make a new CA key; gateways that run take it up within a minute')
    .option('--now', 'end the present ones at once: agents fail until they have the new ca.pem')
    .action(async (options: Where & { readonly now?: boolean }) => {
      const dir = await directoryOf(options)
      await rotate(dir, options.now ?? false)
      process.stdout.write(`${(await view(dir)).map(paragraph).join('\n')}\nGive agents ${dir}/ca.pem.\n`)
    })
  const bundle = located('bundle', 'all CA certificates that agents must trust, as PEM')
    .option('--system', 'with those that this system trusts: what SSL_CERT_FILE and its like may point at')
    .option('-o, --output <file>', 'where to put them (default: standard output)')
    .action(async (options: Where & { readonly system?: boolean; readonly output?: string }) => {
      const pem = (await view(await directoryOf(options))).map((root) => root.pem).join('')
      const { combine } = await import('./run/bundle.ts')
      const text = options.system ? await combine(pem, process.env) : pem
      if (options.output === undefined) process.stdout.write(text)
      else await write(options.output, text)
    })
  const client = located('client', 'the CA of the certificates that upstreams are shown (provider mtls)')
    .option('--rotate', 'add a new root, which signs a day from now: give upstreams the new client-ca.pem before')
    .option('--pem', 'the certificates that upstreams must trust, as PEM')
    .action(async (options: Where & { readonly rotate?: boolean; readonly pem?: boolean }) => {
      const dir = await directoryOf(options)
      const roots = await clients(dir, options.rotate ?? false)
      if (options.pem) process.stdout.write(roots.map(({ pem }) => pem).join(''))
      else process.stdout.write(`${roots.map(clientParagraph).join('\n')}\nUpstreams trust ${dir}/client-ca.pem.\n`)
    })
  return new Command('ca')
    .description('the certificate authority of intercepted TLS')
    .addCommand(show)
    .addCommand(rotateCommand)
    .addCommand(bundle)
    .addCommand(client)
}

function located(name: string, description: string): Command {
  return new Command(name)
    .description(description)
    .option('-c, --config <file>', 'settings of the gateway (default: ./keyless.yaml if there is one)')
    .option('--dir <directory>', 'the directory of its keys instead: <data_dir>/keys, or what keys_dir says')
}

async function directoryOf({ dir, config }: Where): Promise<string> {
  if (dir !== undefined) return resolve(dir)
  const { loadSettings } = await import('../settings.ts')
  return (await loadSettings(config)).keysDir
}

/** Readable by all: certificates are no secret, and their readers are other users. */
async function write(file: string, text: string): Promise<void> {
  const { writeFile } = await import('node:fs/promises')
  await writeFile(file, text, { mode: 0o644 })
}

function paragraph(root: RootView, place: number): string {
  const names = root.names === undefined ? 'any host' : root.names.join(', ')
  const later = root.signsFrom && `signs from ${root.signsFrom.toISOString()}`
  const role = later ?? (place === 0 ? 'signs' : 'signs only what no newer one may')
  return [
    `${root.subject}`,
    `  role         ${role}, trusted until ${root.trustedUntil.toISOString()}`,
    `  names        ${names}`,
    `  valid        ${root.validFrom.toISOString()} to ${root.validTo.toISOString()}`,
    `  serial       ${root.serial}`,
    `  sha256       ${root.fingerprint}`,
    `  spki pin     ${root.pin}`,
    '',
  ].join('\n')
}

function clientParagraph({ subject, fingerprint, isSigning, signsFrom, validTo }: ClientRootView): string {
  const role = isSigning ? 'signs' : signsFrom > new Date() ? `signs from ${signsFrom.toISOString()}` : 'signs no more'
  return `${subject}\n  role         ${role}\n  valid        to ${validTo.toISOString()}\n  sha256       ${fingerprint}\n`
}
