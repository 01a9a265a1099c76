/** A human is forgotten: nothing that the gateway keeps names them any more, and everything that it proved stays proven. */
import { readdir, readFile } from 'node:fs/promises'
import { request } from 'node:http'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import { openPersonal } from '../../gateway/audit/personal/personal.ts'
import { verifyLog } from '../../gateway/audit/verify/verify.ts'
import { serveInstruction } from '../../gateway/instruction.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { Instruction } from '../../gateway/protocol/instruction.ts'
import { personalDirIn } from '../../gateway/settings/data-directory.ts'
import { personalKeyIn } from '../../gateway/settings/keys.ts'
import { findCanaryInTree, newCanary } from '../rig/canary.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { ROOT, run } from '../rig/process.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

const ISS = `local:${hostname()}`
const AGENT = 'spiffe://acme.test/agents/lead'
const CHILD = 'spiffe://acme.test/agents/child'
const name = newCanary()
const purpose = `look after ${newCanary()}`
const userAgent = `client/${newCanary()}`
const owner = newCanary()
const secrets = [name, purpose.slice(11), userAgent.slice(7), owner]

let upstream: TestUpstream
let gateway: TestGateway

beforeAll(async () => {
  upstream = await startUpstream()
  const agents = JSON.stringify([AGENT, CHILD].map((id) => ({ id, owner, purpose: 'try things' })))
  gateway = await startGateway(
    `${await upstream.settings()}\naudit: { personal: sealed, heartbeat_s: 1 }\nagents: ${agents}\n`,
  )
})

afterAll(async () => {
  await gateway.stop()
  await upstream.stop()
})

const keyless = (...args: string[]) =>
  run(process.execPath, [join(ROOT, 'gateway', 'keyless.ts'), ...args], { cwd: gateway.dir })
const auditDir = () => join(gateway.settings.dataDir, 'audit')
const entries = async () =>
  (await readFile(join(auditDir(), 'entries.jsonl'), 'utf8'))
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Entry)

function instruct(instruction: Record<string, unknown>, human = { iss: ISS, sub: name }) {
  const given = { id: uuidv7(), tenant: 'default', ...instruction, ...('by' in instruction ? {} : { human }) }
  return serveInstruction(given as unknown as Instruction, gateway.gateway.house)
}

async function call(handle: string, path: string, ...args: string[]): Promise<string> {
  const ca = `${gateway.settings.keysDir}/ca.pem`
  const proxy = `http://task:${handle}@127.0.0.1:${gateway.proxyPort}`
  const shown = ['-sS', '-A', userAgent, '-o', '/dev/null', '-w', '%{http_code}', '--cacert', ca, '-x', proxy]
  return (await run('curl', [...shown, ...args, upstream.facts.api + path])).stdout
}

function records(asked: URLSearchParams): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const path = `/records?${asked}`
    request({ socketPath: gateway.settings.listen.controlSocket, path }, async (answer) => {
      let text = ''
      for await (const chunk of answer) text += String(chunk)
      resolve(JSON.parse(text))
    })
      .on('error', reject)
      .end()
  })
}

/** Something of everything that names a human. */
async function liveThrough(): Promise<void> {
  const request = { scope: 'demo:*' }
  const opened = await instruct({ kind: 'task.open', agent: AGENT, purpose, request: { ...request, delegable: true } })
  const handle = opened?.handle ?? ''
  await call(handle, '/notes')
  await call(handle, '/notes')
  await call(handle, '/nowhere', '-X', 'DELETE')
  const child = await instruct({
    kind: 'grant.delegate',
    parent: handle,
    agent: CHILD,
    request: { scope: 'demo:notes.read' },
  })
  await call(child?.handle ?? '', '/notes')
  await instruct({ kind: 'grant.delegate', parent: handle, agent: CHILD, request: { scope: 'github:*' } }).catch(
    () => 0,
  )
  await instruct({ kind: 'task.open', agent: 'spiffe://acme.test/nobody', purpose, request }).catch(() => 0)
  await instruct({ kind: 'task.open', agent: AGENT, purpose: `${purpose}\n${name}`, request }).catch(() => 0)
  await call('kh_unknown', '/notes')
  const task = opened?.grant.task.id
  const by = { human: { iss: ISS, sub: name } }
  await instruct({ kind: 'task.intent', by, task, purpose: `${purpose} again`, request: {} })
  await instruct({ kind: 'task.suspend', by, task })
  await instruct({ kind: 'task.complete', by, task, reason: 'completed' })
}

it('names nobody in any file, and shows everybody to whoever has the keys', async () => {
  await liveThrough()
  for (const canary of secrets) expect(await findCanaryInTree(gateway.settings.dataDir, canary)).toEqual([])
  const kinds = new Set((await entries()).map(({ kind }) => kind))
  for (const kind of [
    'call.decision',
    'call.outcome',
    'grant.issued',
    'grant.delegated',
    'grant.denied',
    'grant.revoked',
    'log.heartbeat',
  ])
    expect(kinds).toContain(kind)

  const shown = await keyless('log', 'tail', '-n', '100', '--json', '-c', 'keyless.yaml')
  const told = shown.stdout.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Entry]))
  expect(shown.stdout).not.toContain('"sealed:')
  expect(told.find(({ kind }) => kind === 'call.decision')).toMatchObject({
    human: { iss: ISS, sub: name },
    task: { purpose },
    client: { ip: '127.0.0.1', ua: userAgent },
  })
  const lineage = await keyless('log', 'lineage')
  expect(lineage.stdout, lineage.stderr).toContain(purpose)
  expect(await verifyLog(auditDir())).toMatchObject({ ok: true })
})

it('finds a human by name although nothing has it, at the command line and at the control door', async () => {
  const found = await keyless('log', 'find', '--human', name, '--json')
  expect(found.code, found.stderr).toBe(0)
  expect(found.stdout).toContain(JSON.stringify(name).slice(1, -1))
  expect((await keyless('report', 'inventory', '--json')).stdout).toContain(JSON.stringify(owner))
  const asked = new URLSearchParams({ human: name, limit: '1' })
  await vi.waitFor(
    async () =>
      expect(await records(asked)).toMatchObject({
        records: [{ human: name, purpose: expect.stringContaining(purpose) }],
      }),
    10_000,
  )
  expect(await records(new URLSearchParams({ human: 'nobody of this name' }))).toMatchObject({ records: [] })
  const strangers = new URLSearchParams({ human: name, effect: 'deny', kind: 'call' })
  expect(((await records(strangers)) as { records: unknown[] }).records.length).toBeGreaterThan(0)
})

it('keeps equal names equal, so that they can be looked for', async () => {
  const key = await personalKeyIn(gateway.settings.keysDir)
  if (key === undefined) throw new Error('no key')
  const reader = await openPersonal({ dir: personalDirIn(gateway.settings.keysDir), key, isReader: true })
  const [form] = reader.sealedForms(name)
  const named = (await entries()).filter(({ human }) => human !== undefined)
  expect(named.length).toBeGreaterThan(10)
  expect(new Set(named.map(({ human }) => human?.sub))).toEqual(new Set([form]))
  const chains = named.flatMap(({ lineage }) => lineage?.[0]?.id ?? [])
  expect(new Set(chains)).toEqual(new Set([form]))
})

it('forgets a human: the log says so first, nothing opens any more, and every proof stays valid', async () => {
  const before = await readFile(join(auditDir(), 'entries.jsonl'))
  const forgotten = await keyless('log', 'forget', '--human', name)
  expect(forgotten.stderr).toBe('')
  expect(forgotten.code).toBe(0)
  const [, id = ''] = /Key (\S+) destroyed/.exec(forgotten.stdout) ?? []
  const after = await readFile(join(auditDir(), 'entries.jsonl'))
  expect(after.subarray(0, before.length).equals(before)).toBe(true)
  const said = (await entries()).filter(({ kind }) => kind === 'admin.personal_forgotten')
  expect(said).toMatchObject([{ facts: { keys: [id] }, human: { iss: ISS } }])

  const shown = await keyless('log', 'tail', '-n', '200', '--json')
  expect(shown.stdout).not.toContain(JSON.stringify(name).slice(1, -1))
  expect(shown.stdout).not.toContain(purpose.slice(11, 40))
  expect(shown.stdout).toContain(`"sealed:${id}:`)
  expect(shown.stdout).toContain(JSON.stringify(owner)) // somebody else, whom nobody asked to forget
  for (const canary of secrets) expect(await findCanaryInTree(gateway.settings.dataDir, canary)).toEqual([])
  expect(await readdir(personalDirIn(gateway.settings.keysDir))).toContain(`${id}.gone`)
  expect(await verifyLog(auditDir())).toMatchObject({ ok: true })

  const gone = await keyless('log', 'find', '--human', name, '--json')
  expect(gone.stdout).not.toContain('"kind"')
  expect(await records(new URLSearchParams({ human: name }))).toMatchObject({ records: [] })

  const again = await keyless('log', 'forget', '--human', name)
  expect(again.code).toBe(64)
  expect(again.stderr).toContain('forgotten already')
})

it('knows a human who comes back by another key', async () => {
  await instruct({ kind: 'task.open', agent: AGENT, purpose, request: { scope: 'demo:*' } })
  const subs = new Set((await entries()).flatMap(({ human }) => human?.sub ?? []))
  expect(subs.size).toBe(3) // the forgotten one, the new one, and who gave the order
  const shown = await keyless('log', 'tail', '-n', '3', '--json')
  expect(shown.stdout).toContain(JSON.stringify(name).slice(1, -1))
})

it('forgets without a running gateway too', async () => {
  await gateway.gateway.stop()
  const forgotten = await keyless('log', 'forget', '--human', name, '--iss', ISS)
  expect(forgotten.stderr).toBe('')
  expect(forgotten.stdout).toMatch(/^Key \S+ destroyed: entry \d+ says so/)
  expect((await keyless('log', 'tail', '-n', '30', '--json')).stdout).not.toContain(JSON.stringify(name).slice(1, -1))
  expect(await verifyLog(auditDir())).toMatchObject({ ok: true })
})
