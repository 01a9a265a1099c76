/**
 * `keyless witness`: a witness of gateways' logs (C2SP tlog-witness) as a small process of its own, for a machine that those who
 * run the gateways do not control.
 */
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import { resolve } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import type { NoteVerifier } from '../audit/tree/note.ts'
import type { Finding } from '../audit/witness/witness.ts'
import { systemClock } from '../protocol/clock.ts'
import type { Address } from './witness-door.ts'

const LISTEN = '127.0.0.1:8090'

interface WitnessCommandOptions {
  readonly listen?: Address
  readonly data?: string
  readonly log?: readonly string[]
  readonly name?: string
}

export function witnessCommand(): Command {
  const key = new Command('key')
    .description('print the verifier key of the witness in a directory, made if there is none')
    .option('--data <directory>', 'what the witness remembers (default: witness in $KEYLESS_HOME or ~/.keyless)')
    .option('-c, --config <file>', 'settings of a gateway that is a witness (default: ./keyless.yaml if there is one)')
    .option('--name <name>', 'name of a new witness, such as witness.example.com/acme')
    .action(async (which: Which) => {
      const [{ formatWitnessKey }, { loadWitnessKey }] = await Promise.all([
        import('../audit/witness/cosignature.ts'),
        import('../audit/witness/files.ts'),
      ])
      const { dir, names } = await placeOf(which)
      process.stdout.write(`${formatWitnessKey((await loadWitnessKey(dir, names)).verifier)}\n`)
    })
  return new Command('witness')
    .description('cosign the checkpoints of logs, and refuse every history but the one seen first')
    .enablePositionalOptions() // the options of `key` are its own
    .option('--listen <address>', `where logs reach it (default: ${LISTEN})`, parseAddress)
    .option('--data <directory>', 'what it remembers, and its key (default: witness in $KEYLESS_HOME or ~/.keyless)')
    .option('--log <file or key>', 'log.pub of a log, or its text; once for each', collect)
    .option('--name <name>', 'name of a new witness (default: <host name>/witness)')
    .addCommand(key)
    .action(serve)
}

async function serve({ listen = parseAddress(LISTEN), log = [], ...which }: WitnessCommandOptions): Promise<void> {
  const [{ createWitness }, { loadWitnessKey, openWitnessFiles }, { formatWitnessKey }, { openWitnessDoor }] =
    await Promise.all([
      import('../audit/witness/witness.ts'),
      import('../audit/witness/files.ts'),
      import('../audit/witness/cosignature.ts'),
      import('./witness-door.ts'),
    ])
  if (log.length === 0) throw new Error('Name at least one log to witness: --log /path/to/log.pub, or its text.')
  const logs = await Promise.all(log.map(readLogKey))
  const { dir, names } = await standalone(which)
  const cosigner = await loadWitnessKey(dir, names)
  const store = await openWitnessFiles(dir)
  try {
    const witness = createWitness({ store, cosigner, logs, clock: systemClock, report: tellOnce() })
    const door = await openWitnessDoor(witness, listen)
    process.stdout.write(
      [
        `Witness ${cosigner.verifier.name} is up.`,
        `  key   ${formatWitnessKey(cosigner.verifier)}`,
        `  url   ${door.url}`,
        `  data  ${dir}   its key, and the last checkpoint of each log: never put an older copy in its place`,
        ...logs.map(({ name }) => `  log   ${name}`),
        'Logs name url and key under audit.witnesses. Ctrl-C stops it.',
        '',
      ].join('\n'),
    )
    await Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')])
    await door.close()
  } finally {
    store.close()
  }
}

interface Which {
  readonly data?: string
  readonly config?: string
  readonly name?: string
}

interface Place {
  readonly dir: string
  readonly names: { readonly fallback: string; readonly chosen?: string }
}

async function standalone({ data, name }: Which): Promise<Place> {
  const { defaultDataDir, witnessDirOf } = await import('../settings/data-directory.ts')
  const dir = data === undefined ? witnessDirOf(defaultDataDir()) : resolve(data)
  return { dir, names: { fallback: `${hostname()}/witness`, ...(name !== undefined && { chosen: name }) } }
}

/** That of the gateway whose settings are named or found, unless a directory is named. */
async function placeOf(which: Which): Promise<Place> {
  const config = which.config ?? (existsSync('keyless.yaml') ? 'keyless.yaml' : undefined)
  if (which.data !== undefined || config === undefined) return standalone(which)
  const [{ loadSettings }, { witnessDirOf }] = await Promise.all([
    import('../settings.ts'),
    import('../settings/data-directory.ts'),
  ])
  const { dataDir, audit } = await loadSettings(config)
  const { names } = await standalone(which)
  return { dir: witnessDirOf(dataDir), names: { ...names, fallback: `${audit.origin}/witness` } }
}

/** @param given a file, or the text of a verifier key. */
async function readLogKey(given: string): Promise<NoteVerifier> {
  const { parseVerifier } = await import('../audit/tree/note.ts')
  const isText = /^[^+\s]+\+[0-9a-f]{8}\+/.test(given)
  try {
    return parseVerifier((isText ? given : await readFile(given, 'utf8')).trim())
  } catch (cause) {
    throw new Error(
      `--log ${given}: ${(cause as Error).message}. Name the log.pub of a log (<data_dir>/audit/log.pub), or its text.`,
      { cause },
    )
  }
}

/** A log that shows another history does so every few seconds: each is said once. */
function tellOnce(): (finding: Finding) => void {
  const told = new Set<string>()
  return ({ origin, divergence, text }) => {
    if (told.has(`${origin} ${divergence}`)) return
    told.add(`${origin} ${divergence}`)
    process.stderr.write(`keyless witness: ${divergence.toUpperCase()}: the log ${origin} ${text}\n`)
  }
}

function collect(value: string, before: readonly string[] = []): string[] {
  return [...before, value]
}

function parseAddress(text: string): Address {
  const [, v6, name, port] = /^(?:\[([0-9a-fA-F:.]+)\]|([^:\s[\]]+)):(\d{1,5})$/.exec(text) ?? []
  const host = v6 ?? name
  if (host === undefined || Number(port) > 65535)
    throw new InvalidArgumentError('Write host and port, as in 127.0.0.1:8090 or [::1]:8090.')
  return { host, port: Number(port) }
}
