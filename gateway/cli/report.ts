/** `keyless report`: what the log says of all identities, credentials and promises, for security, platform team and auditors. Needs no running gateway. */
import { Command, Option } from 'commander'
import type { Database, SqlValue } from '../records/database.ts'
import type { Framework } from '../records/frameworks.ts'
import type { Span } from '../records/inquiry.ts'
import type { Vocabulary } from '../records/reach.ts'
import type { WhichIndex } from './log/find-index.ts'
import {
  type OpenIndex,
  onIndex,
  overTime,
  print,
  type SpanOptions,
  settingsHere,
  spanOf,
  vocabularyHere,
  withIndex,
} from './log/with-index.ts'

/** The names alone: what they speak of is loaded when it is asked for. */
const FRAMEWORKS = [
  'soc2',
  'pci',
  'iso27001',
  'owasp-agentic',
  'owasp-nhi',
  'atlas',
  'nist-ai-rmf',
  'maestro',
] as const satisfies readonly Framework[]

interface ReportOptions extends WhichIndex, SpanOptions {
  readonly json?: boolean
  readonly csv?: boolean
  readonly framework?: Framework
  readonly policies?: boolean
}

/** A report, and how it reads. */
interface Made {
  readonly report: unknown
  readonly text: string
}

type Maker = (open: OpenIndex, span: Span, options: ReportOptions) => Promise<Made>

export function reportCommand(): Command {
  const command = new Command('report').description(
    'what the log says of identities, credentials, promises and controls',
  )
  for (const sub of [
    inventoryCommand(),
    exposureCommand(),
    sloCommand(),
    evidenceCommand(),
    leastPrivilegeCommand(),
    checklistCommand(),
  ])
    command.addCommand(sub)
  return command
}

function inventoryCommand(): Command {
  return reportOf(
    'inventory',
    'agents and upstream credentials, ranked by what they could do and for how long',
    makeInventory,
  ).option('--csv', 'as comma-separated values')
}

function exposureCommand(): Command {
  return reportOf(
    'exposure',
    'how long credentials live, how much of it is used, the trend, and what leaked',
    makeExposure,
  )
}

function sloCommand(): Command {
  return reportOf('slo', 'how fast credentials are issued and revoked, and how often policy answered', makeSlo)
}

function evidenceCommand(): Command {
  const framework = new Option('--framework <name>', 'which controls').choices(FRAMEWORKS).makeOptionMandatory()
  return reportOf(
    'evidence',
    'controls of a framework and the entries that show them; --json with inclusion proofs',
    makeEvidence,
  ).addOption(framework)
}

function leastPrivilegeCommand(): Command {
  return reportOf(
    'least-privilege',
    'granted against used operations of each agent, and a narrower policy',
    makeLeastPrivilege,
  ).option('--policies', 'only the policies, as one Cedar file')
}

function checklistCommand(): Command {
  return reportOf('checklist', 'what short-lived authentication needs in production, point by point', makeChecklist)
}

function reportOf(name: string, description: string, make: Maker): Command {
  const command = new Command(name)
    .description(description)
    .option('--audit-dir <directory>', 'directory of the log (default: audit in the data directory)')
    .option('--data <directory>', 'data directory of the gateway (default: $KEYLESS_HOME or ~/.keyless)')
    .option('-c, --config <file>', 'settings of the gateway (default: ./keyless.yaml if there is one)')
    .option('--json', 'as JSON')
    .action((options: ReportOptions) => reportAction(make, options))
  return onIndex(overTime(command))
}

async function reportAction(make: Maker, options: ReportOptions): Promise<void> {
  const { printableJson } = await import('./log/words.ts')
  await withIndex(options, async (open) => {
    const { report, text } = await make(open, await spanOf(options, open.nowMs), options)
    await print(options.json ? printableJson(report, 2) : text)
  })
}

async function vocabularyFor({ database }: OpenIndex, options: ReportOptions): Promise<Vocabulary> {
  const { vocabularyIn } = await import('../records/reach.ts')
  return (await vocabularyHere(options)) ?? vocabularyIn(database)
}

/** Owners by name, for whoever has the keys. */
function named({ database, names }: OpenIndex): Database {
  return {
    dialect: database.dialect,
    all: async <Row>(sql: string, values?: readonly SqlValue[]) => names.unseal(await database.all<Row>(sql, values)),
    transaction: (work) => database.transaction(work),
    close: () => database.close(),
  }
}

async function makeInventory(open: OpenIndex, span: Span, options: ReportOptions): Promise<Made> {
  const [{ inventory }, words] = await Promise.all([
    import('../records/report-inventory.ts'),
    import('./report-words.ts'),
  ])
  const vocabulary = await vocabularyFor(open, options)
  const report = await inventory(named(open), span, { vocabulary, nowMs: open.nowMs })
  return { report, text: options.csv ? words.inventoryAsCsv(report) : words.inventoryInWords(report) }
}

async function makeExposure({ database }: OpenIndex, span: Span): Promise<Made> {
  const [{ exposure }, words] = await Promise.all([
    import('../records/report-exposure.ts'),
    import('./report-words.ts'),
  ])
  const report = await exposure(database, span)
  return { report, text: words.exposureInWords(report) }
}

async function makeSlo({ database }: OpenIndex, span: Span): Promise<Made> {
  const [{ slo }, words] = await Promise.all([import('../records/report-slo.ts'), import('./report-words.ts')])
  const report = await slo(database, span)
  return { report, text: words.sloInWords(report) }
}

async function makeEvidence({ database, dir, origin, nowMs }: OpenIndex, span: Span, o: ReportOptions): Promise<Made> {
  const [{ evidence }, { prove }, words] = await Promise.all([
    import('../records/report-evidence.ts'),
    import('../audit/verify/prove.ts'),
    import('./report-words.ts'),
  ])
  const own = `${origin}:`
  const report = await evidence(database, span, {
    framework: o.framework ?? 'soc2',
    nowMs,
    // Proofs are long: for programs, and only of the log that is here.
    prove: async (entry) =>
      o.json && entry.startsWith(own) ? prove(dir, Number(entry.slice(own.length))).catch(() => undefined) : undefined,
  })
  return { report, text: words.evidenceInWords(report) }
}

async function makeLeastPrivilege(open: OpenIndex, span: Span, options: ReportOptions): Promise<Made> {
  const [{ leastPrivilege }, words] = await Promise.all([
    import('../records/report-least-privilege.ts'),
    import('./report-words.ts'),
  ])
  const report = await leastPrivilege(named(open), span, await vocabularyFor(open, options))
  return { report, text: options.policies ? words.policiesOnly(report) : words.leastPrivilegeInWords(report) }
}

async function makeChecklist(open: OpenIndex, span: Span, options: ReportOptions): Promise<Made> {
  const [{ checklist }, words] = await Promise.all([
    import('../records/report-checklist.ts'),
    import('./report-words.ts'),
  ])
  const report = await checklist(open.database, span, { settings: await settingsHere(options), nowMs: open.nowMs })
  return { report, text: words.checklistInWords(report) }
}
