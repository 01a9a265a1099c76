/** A gateway before the demo API, agents that call it from addresses of their own, and the index of what was recorded. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, vi } from 'vitest'
import { systemClock } from '../../gateway/protocol/clock.ts'
import type { IssuedView } from '../../gateway/protocol/control.ts'
import type { Database } from '../../gateway/records/database.ts'
import { openIndex, originOf } from '../../gateway/records/opening.ts'
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
  /** Everything that was recorded so far. Close it. */
  index(): Promise<Database>
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
    index: () => indexOf(dir, auditDir),
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

/** An index of its own, so that what a gateway does with its own does not matter. */
async function indexOf(dir: string, auditDir: string): Promise<Database> {
  const origin = (await originOf(auditDir)) ?? ''
  const at = { path: join(dir, `index-${process.hrtime.bigint()}.sqlite`) }
  const { database, indexer } = await openIndex({ dir: auditDir, origin, at, clock: systemClock })
  // The end of a call is recorded after its answer was given.
  const open = async () => {
    await indexer.catchUp()
    const sql = `SELECT COUNT(*) AS calls FROM records WHERE kind = 'call' AND effect = 'allow' AND end_seq IS NULL`
    return (await database.all<{ calls: number }>(sql))[0]?.calls
  }
  await vi.waitFor(async () => expect(await open()).toBe(0), { timeout: 10_000, interval: 20 })
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
