/** `keyless scan`: credentials where none may be, in files, prompts, logs, memory stores, CI output or git history; ours can be ended at once. */
import { Command } from 'commander'
import type { LeakReport } from '../../protocol/leak.ts'
import { EXIT, instruct } from '../at-gateway.ts'
import type { WhichIndex } from '../log/find-index.ts'
import { printable, printableLines } from '../log/words.ts'
import type { Finding } from './finder.ts'
import type { Place } from './places.ts'

interface ScanOptions extends WhichIndex {
  readonly env?: true
  readonly git?: true
  readonly exclude: readonly string[]
  readonly revoke?: true
  readonly to?: string
  readonly json?: true
  readonly sarif?: true
}

/** 0: nothing was found. */
const FOUND = 1
const FAILED = 2
/** Told one by one; the rest is counted. */
const MAX_TOLD = 10_000
const BATCH = 500
/** Reporter's token for `--to`. */
const TOKEN = 'KEYLESS_LEAK_TOKEN'

export function scanCommand(): Command {
  return new Command('scan')
    .description('find credentials in files, standard input, the environment or git history; exit 1 when there are any')
    .argument('[path]', 'file or directory; - for standard input', '.')
    .option('--env', 'the environment of this command instead')
    .option('--git', 'everything in the history of the repository at the path instead, its reflogs included')
    .option('--exclude <glob>', 'leave out, as **/node_modules or *.min.js; repeatable', collect, [])
    .option('--revoke', 'report what was found to the gateway on this machine: what is ours ends at once')
    .option('--to <url>', `the same to the control door of a gateway elsewhere, with a reporter's token in ${TOKEN}`)
    .option('--json', 'as JSON, without values')
    .option('--sarif', 'as SARIF 2.1.0, without values')
    .option('-c, --config <file>', 'settings of the gateway (default: ./keyless.yaml if there is one)')
    .option('--data <directory>', 'data directory of the gateway (default: $KEYLESS_HOME or ~/.keyless)')
    .action(scanAction)
}

function collect(value: string, before: readonly string[]): string[] {
  return [...before, value]
}

async function scanAction(path: string, options: ScanOptions): Promise<void> {
  try {
    process.exitCode = await scan(path, options)
  } catch (cause) {
    process.stderr.write(`keyless: the scan broke off: ${printableLines((cause as Error).message)}\n`)
    process.exitCode = FAILED
  }
}

async function scan(path: string, options: ScanOptions): Promise<number> {
  const [{ findingsIn }, { loadSecretFinder }, { knownHere }, words] = await Promise.all([
    import('./finder.ts'),
    import('../../upstream/secret-rules.ts'),
    import('./known.ts'),
    import('./words.ts'),
  ])
  const seekers = { secrets: await loadSecretFinder(), ...(await knownHere(options)) }
  const found: Finding[] = []
  let more = 0
  let places = 0
  const skipped: string[] = []
  for await (const { name, chunks } of placesOf(path, options, skipped)) {
    places += 1
    try {
      for await (const one of findingsIn(name, chunks, seekers)) {
        if (found.length < MAX_TOLD) found.push(one)
        else more += 1
      }
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === undefined) throw cause
      skipped.push(`${name}: ${(cause as NodeJS.ErrnoException).code}`)
    }
  }
  const bad = found.filter(({ rule }) => rule !== 'canary')
  const ends = await endsOf(bad, options)
  const told = words.told({ found, ends: ends.outcomes, more, places, skipped }, options)
  process.stdout.write(`${told}\n`)
  for (const one of skipped) process.stderr.write(`keyless: not read: ${printable(one)}\n`)
  if (ends.isFailed || skipped.length > 0) return FAILED
  return bad.length + more > 0 ? FOUND : 0
}

async function* placesOf(path: string, { env, git, exclude }: ScanOptions, skipped: string[]): AsyncGenerator<Place> {
  const { environment, filesAt, standardInput } = await import('./places.ts')
  if (env) yield* environment(process.env)
  else if (git) yield* (await import('./git.ts')).historyOf(path)
  else if (path === '-') yield standardInput()
  else yield* filesAt(path, exclude, (name, cause) => skipped.push(`${name}: ${cause.message}`))
}

interface Ends {
  /** value → what the gateway did */
  readonly outcomes: ReadonlyMap<string, string>
  readonly isFailed: boolean
}

async function endsOf(found: readonly Finding[], options: ScanOptions): Promise<Ends> {
  const outcomes = new Map<string, string>()
  if ((!options.revoke && options.to === undefined) || found.length === 0) return { outcomes, isFailed: false }
  const values = [...new Map(found.map((one) => [one.value, one])).values()].filter(
    ({ value }) => value.length <= 16_384,
  )
  for (let at = 0; at < values.length; at += BATCH) {
    const batch = values.slice(at, at + BATCH)
    const leaks = batch.map(({ value, rule, place }): LeakReport => ({ token: value, type: rule, source: place }))
    const results = await reported(leaks, options)
    if (typeof results === 'number') return { outcomes, isFailed: true }
    results.forEach(({ kind, outcome }, n) => {
      const value = batch[n]?.value
      if (value !== undefined && kind !== 'unknown') outcomes.set(value, `${kind} ${outcome}`)
    })
  }
  return { outcomes, isFailed: false }
}

type Results = readonly { readonly kind: string; readonly outcome: string }[]

/** @returns an exit code of `EXIT` in place of results that did not come. */
async function reported(leaks: readonly LeakReport[], options: ScanOptions): Promise<Results | number> {
  if (options.to === undefined) return instruct(options, (control) => control.reportLeaks({ leaks }))
  const token = process.env[TOKEN]
  if (token === undefined) {
    process.stderr.write(`keyless: --to needs the token of a reporter (leaks.reporters of the gateway) in ${TOKEN}\n`)
    return EXIT.usage
  }
  const door = new URL('leaks', options.to.replace(/\/*$/, '/'))
  if (door.protocol !== 'https:' && !isThisMachine(door)) {
    process.stderr.write(
      `keyless: --to is ${options.to}: over anything but https the credentials could be read on the way\n`,
    )
    return EXIT.usage
  }
  const answer = await fetch(door, {
    method: 'POST',
    redirect: 'error',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
    body: JSON.stringify({ leaks }),
    signal: AbortSignal.timeout(30_000),
  })
  const told = (await answer.json().catch(() => ({}))) as { results?: Results; detail?: string }
  if (answer.ok && told.results !== undefined) return told.results
  process.stderr.write(
    `keyless: the gateway at ${options.to} answered ${answer.status}${told.detail ? `: ${printableLines(String(told.detail))}` : ''}\n`,
  )
  return EXIT.refused
}

function isThisMachine({ hostname }: URL): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127\.(?:\d+\.){2}\d+$/.test(hostname)
}
