/** `keyless policy explain`: why policy allows or denies a request, an operation, a grant, or a decision of the log. */
import { Command } from 'commander'
import type { Explanation } from '../../policy/tools/explain.ts'
import type { Recorded } from '../../policy/tools/recorded.ts'
import type { Scene, Subject } from '../../policy/tools/scene.ts'
import type { Facts, Kind, Written } from '../../policy/tools/supposed.ts'
import { explanationText } from './explain-words.ts'
import { type LogOptions, onLog, recordedIn } from './log.ts'
import { load, onSources, type Sources, sourcesOf } from './sources.ts'

interface ExplainOptions extends LogOptions {
  readonly agent?: string
  readonly set: Readonly<Record<string, unknown>>
  readonly mint?: boolean
  readonly delegate?: boolean
  readonly all?: boolean
  readonly json?: boolean
}

export function policyExplainCommand(): Command {
  const command = new Command('explain')
    .description('which policies decide, which condition failed and what it saw, and what would make it pass')
    .argument(
      '<asked...>',
      'METHOD URL, an operation, operation patterns with --mint or --delegate, or an id or number of the log',
    )
  return onLog(onSources(command))
    .option('--agent <id>', 'who asks: an agent of the settings, or any other id')
    .option(
      '--set <name=value>',
      'a fact as policies read it, such as context.attested=true; may be repeated',
      addFact,
      {},
    )
    .option('--mint', 'ask whether a root grant may be made for these operation patterns')
    .option('--delegate', 'ask whether a grant below another may be made for them')
    .option('--all', 'all policies that could have a say, not only the nearest')
    .option('--json', 'as JSON')
    .action(async (asked: string[], options: ExplainOptions) => {
      process.exitCode = await run(asked, options)
    })
}

/** The value as YAML would have it: true, 300, [mfa], text. */
function addFact(text: string, facts: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const at = text.indexOf('=')
  return { ...facts, [at === -1 ? text : text.slice(0, at)]: at === -1 ? '' : text.slice(at + 1) }
}

async function run(asked: readonly string[], options: ExplainOptions): Promise<number> {
  const sources = await sourcesOf(options)
  const subject = await load(sources)
  const engines = sources.settings?.policy.engines.map(({ name }) => name) ?? []
  if (engines.length > 0)
    process.stderr.write(
      `keyless: not asked: ${engines.join(', ')} of policy.engines, which can say no to this as well\n`,
    )
  const { explain } = await import('../../policy/tools/explain.ts')
  const [first = ''] = asked
  if (asked.length === 1 && /^(?:\d+|[0-9a-f]{8}-[0-9a-f-]{27})$/.test(first)) {
    const recorded = await findRecorded(first, options)
    const { sceneOfRecorded } = await import('../../policy/tools/replay.ts')
    const { scene, facts } = sceneOfRecorded(subject, recorded)
    return print(await explain(subject, scene, facts, (name) => facts.has(name)), recorded, options)
  }
  const scene = await sceneOf(asked, subject, options)
  return print(await explain(subject, scene, await supposed(scene.kind, options, sources)), scene, options)
}

async function findRecorded(id: string, options: LogOptions): Promise<Recorded> {
  for await (const recorded of recordedIn(options))
    if (recorded.req === id || String(recorded.seq) === id) return recorded
  throw new Error(
    `the log has no decision ${id} on which policies have a say. keyless log show ${id} tells what it has; a call that was refused before anybody knew who asks has none.`,
  )
}

async function sceneOf(asked: readonly string[], subject: Subject, { mint, delegate }: ExplainOptions): Promise<Scene> {
  const { parseCall, sceneOfCall, sceneOfOperation } = await import('../../policy/tools/scene.ts')
  if (mint || delegate) return { kind: mint ? 'mint' : 'delegate', scope: asked.flatMap((text) => text.split(' ')) }
  const text = asked.join(' ')
  return text.includes(' ') ? sceneOfCall(subject, parseCall(text)) : sceneOfOperation(subject, text)
}

async function supposed(kind: Kind, { agent, set }: ExplainOptions, { settings }: Sources): Promise<Facts> {
  const [{ factsOf }, { parse }] = await Promise.all([import('../../policy/tools/supposed.ts'), import('yaml')])
  const registered = settings?.agents.find(({ id }) => id === agent)
  const principal: Record<string, unknown> = {
    ...(agent !== undefined && { id: agent }),
    ...(registered && { owner: registered.owner, purpose: registered.purpose, risk_tier: registered.riskTier }),
  }
  const written: Record<string, Record<string, unknown>> = { principal, resource: {}, context: {} }
  for (const [name, text] of Object.entries(set)) {
    const [variable = '', member = ''] = name.split(/\.(.*)/)
    const facts = written[variable]
    if (facts === undefined || member === '')
      throw new Error(`--set ${name}: write principal.…, resource.… or context.…, such as context.attested=true.`)
    facts[member] = parse(String(text))
  }
  return factsOf(kind, written as Written)
}

function print(explanation: Explanation, of: Recorded | Scene, { json, all }: ExplainOptions): number {
  const text = json ? `${JSON.stringify(plain(explanation))}\n` : explanationText(explanation, of, all === true)
  process.stdout.write(text)
  return 0
}

/** Without the policies' own text and form, which are in their files. */
function plain({ decision, services, ways, unknown }: Explanation) {
  const { effect, code, policyIds, errors, obligations } = decision
  const accounts = services.map(({ policies, ...account }) => ({
    ...account,
    policies: policies.map(({ policy, ...standing }) => {
      const { id, owner, file, line, json } = policy
      return { id, owner, file, line, effect: json.effect, ...standing }
    }),
  }))
  const told = unknown.length > 0 ? 'unknown' : effect
  return { effect: told, code, policy_ids: policyIds, errors, obligations, services: accounts, ways, unknown }
}
