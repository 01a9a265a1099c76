/** `keyless policy check`: validate service files and policies without starting anything; for CI and before a reload. */
import { Command } from 'commander'
import type { PolicyRemark } from '../../policy/tools/review.ts'
import type { Settings } from '../../settings.ts'
import { counted, type Loaded, load, onSources, type SourceOptions, sourcesOf } from './sources.ts'

interface CheckOptions extends SourceOptions {
  readonly strict?: boolean
}

export function policyCheckCommand(): Command {
  const command = new Command('check')
    .description('validate services and policies; exit code 1 and every problem at once if something is wrong')
    .option('--strict', 'exit code 1 for what is only remarked on, too')
  return onSources(command).action(async (options: CheckOptions) => {
    process.exitCode = await runCheck(options)
  })
}

/** @returns the exit code: 0 when all is well, 1 when not. */
async function runCheck(options: CheckOptions): Promise<number> {
  try {
    const sources = await sourcesOf(options)
    const loaded = await load(sources)
    const remarks = await remarksOn(loaded, sources.settings)
    process.stderr.write(remarks.map(remarkText).join(''))
    process.stdout.write(summary(loaded, remarks.length))
    return options.strict && remarks.length > 0 ? 1 : 0
  } catch (cause) {
    process.stderr.write(`${cause instanceof Error ? cause.message : String(cause)}\n`)
    return 1
  }
}

/** Kinds of credential that end only when their owner changes them (`ephemeral: false`). */
const STANDING: readonly string[] = ['static', 'basic', 'hmac']

function isStanding(credential: Settings['credentials'][string] | undefined): boolean {
  if (credential === undefined) return false
  return STANDING.includes(credential.provider) || (credential.provider === 'aws' && credential.session === 'none')
}
const CEILING_S = 3600

/** Without settings nothing is known of credentials, and nothing is said of them. */
async function remarksOn({ bundle, catalogue }: Loaded, settings: Settings | undefined): Promise<PolicyRemark[]> {
  const { reviewPolicies } = await import('../../policy/tools/review.ts')
  const { unanswered } = await import('../../policy/answering.ts')
  const reviewed = reviewPolicies({
    ...{ bundle, catalogue },
    today: new Date().toISOString().slice(0, 10),
    ceilingS: settings?.grants.ttl.maxS ?? CEILING_S,
    isStanding: ({ credential = '' }) => isStanding(settings?.credentials[credential]),
  })
  return settings === undefined ? reviewed : [...reviewed, ...unanswered(bundle.policies, await answeringIn(settings))]
}

async function answeringIn({ approvals, signals }: Settings) {
  const { notifiedOf } = await import('../../settings/signals.ts')
  return { groups: approvals.groups, notified: notifiedOf(signals) }
}

function remarkText({ where, says, fix }: PolicyRemark): string {
  return `remark: ${where}: ${says}\n    fix: ${fix}\n`
}

function summary({ catalogue, bundle }: Loaded, remarks: number): string {
  const operations = catalogue.services.reduce((sum, service) => sum + service.operations.length, 0)
  const files = new Set(bundle.policies.map((policy) => policy.file)).size
  const counts = [counted(bundle.policies.length, 'policy', 'policies'), `in ${counted(files, 'file')},`]
  counts.push(`${counted(catalogue.services.length, 'service')},`, counted(operations, 'operation'))
  const said = remarks === 0 ? '' : `${counted(remarks, 'remark')}\n`
  return `${counts.join(' ')}\n${said}${bundle.digest}\n`
}
