/**
 * `npm run bench:policies`: what a decision costs as policies grow from 10 to 10,000, remembered and asked of Cedar; what loading and
 * loading anew take; and the memory of it. In one process, without sockets. Prints and writes bench/POLICIES.md.
 */
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Catalogue, loadCatalogue } from '../gateway/policy/catalogue/catalogue.ts'
import { createEngine } from '../gateway/policy/engine.ts'
import { createPolicy, type Policy } from '../gateway/policy/evaluation.ts'
import { loadBundle } from '../gateway/policy/source/bundle.ts'
import type { Ask } from '../gateway/protocol/decision.ts'
import type { Endpoint } from '../gateway/protocol/service.ts'
import { ROOT } from '../test/rig/process.ts'
import { machine } from './report.ts'
import { load, quantiles, row } from './timing.ts'

const COUNTS = [10, 100, 1_000, 10_000] as const
const SERVICES = ['github', 'gitlab', 'openai', 'anthropic', 'slack', 'stripe'] as const
const TARGET_US = 60
/** `batch`: remembered decisions are too short for the clock one by one. */
const PLAN = { warm: 3000, warmMs: 1500, asked: 300, remembered: 300, batch: 100 } as const

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

interface Figures {
  readonly count: number
  readonly inSlice: number
  readonly remembered: Spent
  readonly asked: Spent
  readonly loadS: number
  readonly anewS: number
  readonly heldMiB: number
}

const [, , spreadAt, countOf] = process.argv
if (spreadAt === undefined) await report()
else process.stdout.write(JSON.stringify(await measure(SPREADS[Number(spreadAt)] as Spread, Number(countOf))))

async function report(): Promise<void> {
  const before = load()
  const tables = SPREADS.map(({ name }, at) => ({ name, rows: COUNTS.map((count) => apart(at, count)) }))
  const text = [
    '# Decisions, measured',
    '',
    'Written by `npm run bench:policies`; do not edit.',
    '',
    ...(await machine()).slice(0, 2),
    `- Node ${process.versions.node}; each row in a process of its own, without sockets; load of the machine ${before} before and ${load()} after:`,
    '  above 1, other work was measured too',
    '',
    ...tables.flatMap(tableLines),
    'A decision is asked of Cedar, or remembered: reused for equal values of every attribute that some policy of the slice reads, and never under',
    'another bundle. The slice is the policies that can have a say on the operation at the service: only they cost anything. Median and p99 of',
    `${PLAN.asked} decisions asked, after up to ${PLAN.warm} others, and of ${PLAN.remembered} batches of ${PLAN.batch} remembered ones. Loading parses, validates and cuts; loading anew is the same`,
    'again beside the one that decides, which goes on deciding while a reload does this in another thread. Memory is what the process has more after',
    'the first load, outside of the heap included.',
    '',
    `Target: p50 of ${TARGET_US} µs. ${verdict(tables.flatMap(({ rows }) => rows))}`,
    '',
  ].join('\n')
  process.stdout.write(text)
  await writeFile(join(ROOT, 'bench', 'POLICIES.md'), text)
}

/** In a process of its own: memory that the row before has freed would be taken again, and count as none. */
function apart(at: number, count: number): Figures {
  const script = fileURLToPath(import.meta.url)
  return JSON.parse(
    execFileSync(process.execPath, ['--expose-gc', script, String(at), String(count)], { encoding: 'utf8' }),
  )
}

function tableLines({ name, rows }: { readonly name: string; readonly rows: readonly Figures[] }): string[] {
  return [
    `## Policies ${name}`,
    '',
    row('policies', 'in the slice', 'remembered p50 / p99 µs', 'asked p50 / p99 µs', 'load s', 'load anew s', 'MiB'),
    '|--:|--:|--:|--:|--:|--:|--:|',
    ...rows.map(({ count, inSlice, remembered, asked, loadS, anewS, heldMiB }) =>
      row(
        count.toLocaleString('en'),
        inSlice,
        `${remembered.p50.toFixed(2)} / ${remembered.p99.toFixed(2)}`,
        `${asked.p50.toFixed(0)} / ${asked.p99.toFixed(0)}`,
        loadS.toFixed(1),
        anewS.toFixed(1),
        heldMiB.toFixed(0),
      ),
    ),
    '',
  ]
}

async function measure(spread: Spread, count: number): Promise<Figures> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-bench-'))
  try {
    const shippedDir = join(ROOT, 'policies', 'services')
    const catalogue = await loadCatalogue({ services: SERVICES, shippedDir, baseDir: ROOT })
    const operations = catalogue.services.flatMap((service) => service.operations.map((operation) => operation.name))
    const file = join(dir, 'bench.cedar')
    await writeFile(file, Array.from({ length: count }, (_, n) => spread.text(n, operations)).join('\n'))
    return { count, ...(await figuresOf(catalogue, [join(ROOT, 'policies', 'defaults.cedar'), file])) }
  } finally {
    await rm(dir, { recursive: true })
  }
}

async function figuresOf(catalogue: Catalogue, paths: readonly string[]): Promise<Omit<Figures, 'count'>> {
  const endpoint = endpointIn(catalogue)
  const before = residentMiB()
  const [bundle, loadS] = await inSeconds(() => loadBundle({ paths, catalogue }))
  const heldMiB = residentMiB() - before
  const [, anewS] = await inSeconds(() => loadBundle({ paths, catalogue }))
  const plain = createPolicy({ bundle, tenant: 'default' })
  const forgetful = createPolicy({ bundle, tenant: 'default', engine: createEngine(bundle, { remembers: false }) })
  const times = { remembered: remembered(plain, endpoint), asked: asked(forgetful, endpoint) }
  return { ...times, inSlice: bundle.sliceFor(endpoint.operation).policies.size, loadS, anewS, heldMiB }
}

async function inSeconds<T>(work: () => Promise<T>): Promise<[T, number]> {
  const started = performance.now()
  const made = await work()
  return [made, (performance.now() - started) / 1000]
}

function residentMiB(): number {
  globalThis.gc?.()
  return process.memoryUsage().rss / 2 ** 20
}

/** Microseconds. */
type Spent = ReturnType<typeof quantiles>

/** Each for another task, which the slice may read. */
function asked(policy: Policy, endpoint: Endpoint): Spent {
  return spent(PLAN.asked, 1, (n) => requireAllowed(policy, ask(endpoint, `asked-${n}`)))
}

function remembered(policy: Policy, endpoint: Endpoint): Spent {
  const again = ask(endpoint, 'again')
  return spent(PLAN.remembered, PLAN.batch, () => requireAllowed(policy, again))
}

function spent(count: number, batch: number, work: (n: number) => void): Spent {
  const until = performance.now() + PLAN.warmMs
  for (let n = 0; n < PLAN.warm && performance.now() < until; n++) work(n)
  const took = Array.from({ length: count }, (_, n) => {
    const started = performance.now()
    for (let i = 0; i < batch; i++) work(PLAN.warm + n)
    return ((performance.now() - started) * 1000) / batch
  })
  return quantiles(took)
}

/** In words, of the figures above. */
function verdict(rows: readonly Figures[]): string {
  const said = (['remembered', 'asked'] as const).map((kind) => {
    const all = rows.map((one) => one[kind].p50)
    const [least, most] = [Math.min(...all), Math.max(...all)].map((us) => us.toFixed(us < 10 ? 2 : 0))
    const kept = rows.filter((one) => one[kind].p50 <= TARGET_US).length
    return `${kind}: ${least} to ${most} µs, kept in ${kept} of ${rows.length} rows`
  })
  return `${said.join('; ')}.`
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
