/**
 * `npm run bench:policies`: what a decision costs as policies grow from 10 to 10,000: asked of Cedar for the first time, and
 * remembered. In one process, without sockets. Writes bench/POLICIES.md.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Bundle, loadBundle } from '../gateway/policy/bundle.ts'
import { type Catalogue, loadCatalogue } from '../gateway/policy/catalogue.ts'
import { createPolicy, type Policy } from '../gateway/policy/evaluation.ts'
import type { Ask } from '../gateway/protocol/decision.ts'
import type { Endpoint } from '../gateway/protocol/service.ts'
import { ROOT } from '../test/rig/process.ts'
import { machine } from './report.ts'

const COUNTS = [10, 100, 1_000, 10_000] as const
const SERVICES = ['github', 'gitlab', 'openai', 'anthropic', 'slack', 'stripe'] as const
const PLAN = { first: 200, remembered: 20_000, rounds: 10 } as const

interface Spread {
  readonly name: string
  /** The text of policy `n`, which never lets or forbids the call that is measured. */
  text(n: number, operations: readonly string[]): string
}

const SPREADS: readonly Spread[] = [
  {
    name: 'about all operations of six services in turn',
    text: (n, operations) => forbid(n, operations[n % operations.length] as string, `context.task_id == "task-${n}"`),
  },
  {
    name: 'all about the operation that is called, each naming a task',
    text: (n) => forbid(n, 'github:issues.list', `context.task_id == "task-${n}"`),
  },
]

const dir = await mkdtemp(join(tmpdir(), 'keyless-bench-'))
try {
  const shippedDir = join(ROOT, 'policies', 'services')
  const catalogue = await loadCatalogue({ services: SERVICES, shippedDir, baseDir: ROOT })
  const text = [
    '# Decisions, measured',
    '',
    'Written by `npm run bench:policies`; do not edit.',
    '',
    ...(await machine()).slice(0, 2),
    `- Node ${process.versions.node}; in one process, without sockets; the median of ${PLAN.first} first decisions, the best of ${PLAN.rounds} rounds of remembered ones`,
    '',
    ...(await tables(catalogue)),
    'A first decision asks Cedar about the slice: the policies that can have a say on this operation at this service. It is reused only for',
    'equal values of every attribute that some policy of the slice reads, and never under another bundle.',
    '',
  ].join('\n')
  process.stdout.write(text)
  await writeFile(join(ROOT, 'bench', 'POLICIES.md'), text)
} finally {
  await rm(dir, { recursive: true })
}

async function tables(catalogue: Catalogue): Promise<string[]> {
  const lines: string[] = []
  for (const spread of SPREADS) {
    lines.push(`## Policies ${spread.name}`, '')
    lines.push('| policies | in the slice | loading s | first decision µs | remembered µs |', '|--:|--:|--:|--:|--:|')
    for (const count of COUNTS) lines.push(await row(catalogue, spread, count))
    lines.push('')
  }
  return lines
}

async function row(catalogue: Catalogue, spread: Spread, count: number): Promise<string> {
  const endpoint = endpointIn(catalogue)
  const operations = catalogue.services.flatMap((service) => service.operations.map((operation) => operation.name))
  const file = join(dir, `${count}.cedar`)
  await writeFile(file, Array.from({ length: count }, (_, n) => spread.text(n, operations)).join('\n'))
  const started = performance.now()
  const paths = [join(ROOT, 'policies', 'defaults.cedar'), file]
  const bundle: Bundle = await loadBundle({ paths, catalogue })
  const loadedS = (performance.now() - started) / 1000
  const policy = createPolicy({ bundle, tenant: 'default' })
  const inSlice = bundle.sliceFor(endpoint.operation).policies.size
  const first = firstDecisions(policy, endpoint)
  const cells = [
    count.toLocaleString('en'),
    String(inSlice),
    loadedS.toFixed(1),
    first.toFixed(0),
    remembered(policy, endpoint).toFixed(2),
  ]
  return `| ${cells.join(' | ')} |`
}

/** Each for another task, which the slice may read. */
function firstDecisions(policy: Policy, endpoint: Endpoint): number {
  const took = Array.from({ length: PLAN.first }, (_, n) => {
    const asked = ask(endpoint, `first-${n}`)
    const started = performance.now()
    requireAllowed(policy, asked)
    return (performance.now() - started) * 1000
  })
  return took.toSorted((a, b) => a - b)[took.length / 2] as number
}

function remembered(policy: Policy, endpoint: Endpoint): number {
  const asked = ask(endpoint, 'again')
  const rounds = Array.from({ length: PLAN.rounds }, () => {
    const started = performance.now()
    for (let n = 0; n < PLAN.remembered; n++) requireAllowed(policy, asked)
    return ((performance.now() - started) * 1000) / PLAN.remembered
  })
  return Math.min(...rounds)
}

function requireAllowed(policy: Policy, asked: Ask): void {
  const { effect, detail } = policy.evaluate(asked)
  if (effect !== 'allow') throw new Error(`the measured call is refused: ${detail}`)
}

function endpointIn(catalogue: Catalogue): Endpoint {
  return catalogue.locate({
    method: 'GET',
    scheme: 'https',
    host: 'api.github.com',
    port: 443,
    rawPath: '/repos/acme/site/issues?state=open',
  } as Parameters<Catalogue['locate']>[0])
}

function ask(endpoint: Endpoint, task: string): Ask {
  const agent = { id: 'spiffe://bench/agent', owner: 'bench', purpose: 'be measured', riskTier: 'low' } as const
  return {
    grant: {
      id: 'grant',
      tenant: 'default',
      human: { iss: 'local:bench', sub: 'bench' },
      agent,
      task: { id: task, purpose: 'be measured' },
      authority: [{ operations: ['github:*'] }],
      issuedAt: 1_700_000_000,
      expiresAt: 1_700_000_900,
      lineage: [],
      lineageHash: '',
      depth: 0,
      maxDepth: 3,
      delegable: true,
      ancestry: [],
      attestations: [],
    },
    endpoint,
    method: 'GET',
    rawPath: endpoint.rawPath,
    sourceAddress: '127.0.0.1',
    nowMs: 1_700_000_000_000,
  }
}

function forbid(n: number, operation: string, condition: string): string {
  return `@id("bench-${n}") @owner("bench") forbid (principal is Agent, action == Action::"${operation}", resource) when { ${condition} };`
}
