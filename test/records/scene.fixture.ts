/** A gateway before the demo API, agents that call it from addresses of their own, and the index of what was recorded. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, vi } from 'vitest'
import { systemClock } from '../../gateway/protocol/clock.ts'
import type { IssuedView } from '../../gateway/protocol/control.ts'
import type { Database } from '../../gateway/records/database.ts'
import { type IndexOptions, openIndex, originOf } from '../../gateway/records/opening.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

export const agentId = (name: string) => `spiffe://test/agent/${name}`

export interface Scene {
  readonly dir: string
  readonly auditDir: string
  readonly gateway: TestGateway
  /** Stop the gateway and start it again under these policies. */
  under(cedar: string): Promise<void>
  open(agent: string, scope: string): Promise<IssuedView>
  delegate(parent: IssuedView, agent: string, scope: string): Promise<IssuedView>
  /** @returns the status, and the code of a refusal. */
  call(grant: IssuedView, method: string, path: string, from?: string): Promise<string>
  /** Everything that was recorded so far; by default in a file of its own. Close it. */
  index(at?: IndexOptions['at']): Promise<Database>
  settingsFile(): string
  stop(): Promise<void>
}

export async function openScene(agents: readonly string[], cedar: string): Promise<Scene> {
  const upstream = await startUpstream()
  const dir = await mkdtemp(join(tmpdir(), 'keyless-scene-'))
  const policy = join(dir, 'policy.cedar')
  await writeFile(policy, cedar)
  const yaml = await settingsOf(upstream, agents, policy)
  let gateway = await startGateway(yaml, { dir })
  const auditDir = join(gateway.settings.dataDir, 'audit')
  return {
    dir,
    auditDir,
    get gateway() {
      return gateway
    },
    async under(text) {
      await gateway.stop()
      await writeFile(policy, text)
      gateway = await startGateway(yaml, { dir })
    },
    open: (agent, scope) => gateway.control.openTask({ agent: agentId(agent), scope, purpose: `the task of ${agent}` }),
    delegate: (parent, agent, scope) =>
      gateway.control.delegate({ parent: parent.grant, agent: agentId(agent), scope }),
    call: (grant, method, path, from) =>
      callAs(gateway.proxyPort, grant.handle ?? grant.token, { method, path: `/demo${path}`, from }),
    index: (at = { path: join(dir, `index-${process.hrtime.bigint()}.sqlite`) }) => indexOf({ gateway, auditDir }, at),
    settingsFile: () => join(dir, 'keyless.yaml'),
    async stop() {
      await gateway.stop()
      await upstream.stop()
      await rm(dir, { recursive: true, force: true })
    },
  }
}

async function settingsOf(upstream: TestUpstream, agents: readonly string[], policy: string): Promise<string> {
  const list = agents.map((name) => `  - { id: "${agentId(name)}", owner: ana, purpose: test, risk_tier: low }`)
  return `${await upstream.settings()}\npolicies: ["${policy}"]\nagents:\n${list.join('\n')}\n`
}

/** Apart from the gateway's own. */
async function indexOf(
  { gateway, auditDir }: Pick<Scene, 'gateway' | 'auditDir'>,
  at: IndexOptions['at'],
): Promise<Database> {
  const origin = (await originOf(auditDir)) ?? ''
  const { database, indexer } = await openIndex({ dir: auditDir, origin, at, clock: systemClock })
  // The end of a call is recorded after its answer was given, and read when a checkpoint covers it.
  const isComplete = async () => {
    const { audit } = await gateway.control.status()
    await indexer.catchUp()
    const open = `SELECT COUNT(*) FROM records WHERE kind = 'call' AND effect = 'allow' AND end_seq IS NULL`
    const sql = `SELECT next, (${open}) AS calls FROM progress`
    const [row] = await database.all<{ next: number; calls: number }>(sql)
    return row?.calls === 0 && row.next >= audit.size
  }
  await vi.waitFor(async () => expect(await isComplete()).toBe(true), { timeout: 10_000, interval: 20 })
  return database
}

interface Call {
  readonly method: string
  readonly path: string
  /** Address of this machine; all of 127.0.0.0/8 are. */
  readonly from?: string | undefined
}

function callAs(port: number, grant: string, { method, path, from = '127.0.0.1' }: Call): Promise<string> {
  const authorization = `Basic ${Buffer.from(`task:${grant}`).toString('base64')}`
  const headers = {
    'proxy-authorization': authorization,
    ...(method === 'POST' && { 'content-type': 'application/json' }),
  }
  return new Promise((resolve, reject) => {
    const asked = request(
      { host: '127.0.0.1', port, method, path, headers, localAddress: from, agent: false },
      (answer) => {
        answer.resume()
        const code = answer.headers['keyless-error']
        answer.once('end', () =>
          resolve(code === undefined ? String(answer.statusCode) : `${answer.statusCode} ${code}`),
        )
      },
    )
    asked.once('error', reject)
    asked.end(method === 'POST' ? JSON.stringify({ text: 'a note' }) : undefined)
  })
}

const OPENING = `
@id("open") @owner("test") permit (principal is Agent, action in [Action::"mint", Action::"delegate"], resource is Service);
`

/** Policies that let agents make grants, and do what these say. */
export function policies(...rules: string[]): string {
  return `${OPENING}${rules.map((rule, i) => `@id("rule-${i}") @owner("test") ${rule}`).join('\n')}\n`
}

export const READ = 'permit (principal is Agent, action in [Action::"read"], resource);'
export const WRITE = 'permit (principal is Agent, action in [Action::"write"], resource);'
