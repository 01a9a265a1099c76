import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openReader } from '../../gateway/audit/files/reader.ts'
import { loadLogKey, openLog } from '../../gateway/audit/log.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import {
  call,
  decision,
  endpoint,
  entriesOf,
  grant,
  inbound,
  note,
  ORIGIN,
  openTestLog,
  outcome,
  temporaryDir,
  testAudit,
  testClock,
} from '../audit/log.fixture.ts'

const LOG = fileURLToPath(new URL('../../gateway/cli/log/log.ts', import.meta.url))
const PROGRAM = `const { logCommand } = await import(${JSON.stringify(LOG)}); await logCommand().parseAsync(process.argv.slice(1), { from: 'user' })`

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what must not come out
const STEERING = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028\u202e\u{e0041}]/u

let data: string
let dir: string
beforeEach(async () => {
  data = await temporaryDir()
  dir = join(data, 'audit')
})
afterEach(() => rm(data, { recursive: true, force: true }))

interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** Nothing of this process's, but where the runtime keeps what it compiled. */
const environment = () => ({ KEYLESS_HOME: data, NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE })

function keyless(...args: string[]): Promise<Ran> {
  return new Promise((resolve) => {
    const node = ['--input-type=module', '--eval', PROGRAM, '--', ...args]
    execFile(process.execPath, node, { cwd: data, env: environment() }, (error, out, err) =>
      resolve({ code: error ? Number(error.code) : 0, out, err }),
    )
  })
}

async function fill(calls: number): Promise<string[]> {
  const audit = testAudit(await openTestLog(dir))
  const ids: string[] = []
  for (let i = 0; i < calls; i++) ids.push(await call(audit))
  await audit.close()
  return ids
}

describe('keyless log tail', () => {
  it('prints the last entries, oldest first, one a line', async () => {
    const [id] = await fill(1)
    const { code, out } = await keyless('tail', '-n', '3')
    expect(code).toBe(0)
    expect(out.trimEnd().split('\n')).toEqual([
      expect.stringMatching(
        new RegExp(
          `^2026-11-21 23:04:05\\.123  #1  ALLOW  ana → spiffe://acme\\.test/agents/triage  GET api\\.github\\.com/repos/acme/site/issues  github:issues\\.read  \\[${id}\\]$`,
        ),
      ),
      expect.stringContaining('#2    → 200  0 ms  4123 B in, 0 B out  credential github (static, hit)'),
      expect.stringContaining('#3  log.sealed'),
    ])
  })

  it('prints entries as they are with --json', async () => {
    await fill(1)
    const { out } = await keyless('tail', '-n', '1', '--json')
    expect(JSON.parse(out)).toMatchObject({ kind: 'log.sealed', seq: 3 })
  })

  it('goes on with -f until it is interrupted', async () => {
    const clock = testClock()
    const log = await openLog({ dir, origin: ORIGIN, key: await loadLogKey(dir, ORIGIN), durability: 'fsync', clock })
    const child = spawn(
      process.execPath,
      ['--input-type=module', '--eval', PROGRAM, '--', 'tail', '-f', '-n', '1', '--json'],
      { env: environment() },
    )
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    const next = async () => JSON.parse((await lines.next()).value as string)
    expect(await next()).toMatchObject({ kind: 'log.opened' })
    await log.append(note({ i: 1 }))
    expect(await next()).toMatchObject({ seq: 1, facts: { i: 1 } })
    await log.append(note({ i: 2 }))
    expect(await next()).toMatchObject({ seq: 2, facts: { i: 2 } })
    child.kill('SIGINT')
    expect(await once(child, 'exit')).toEqual([0, null])
    await log.close()
  })

  it('shows no character that could steer a terminal', async () => {
    const audit = testAudit(await openTestLog(dir))
    const client = { address: '127.0.0.1', userAgent: 'x\u009b31m\u{e0041}' } // latin1 in a header field is C1 in Unicode
    const event = audit.openCall(inbound({ host: 'evil\u001b[2J\u202egpj.example', rawPath: '/\u0007\u2028', client }))
    await event.refused(new GatewayError('grant_missing', 'Present a grant.'))
    await audit.close()
    const commands = [['tail'], ['show', '1'], ['lineage', '1'], ['tail', '--json'], ['show', '1', '--json']]
    for (const args of commands) {
      const { out } = await keyless(...args)
      expect(out).toMatch(/evil\\u/)
      expect(out).not.toMatch(STEERING)
    }
    const { out } = await keyless('show', '1', '--json')
    expect(JSON.parse(out)).toMatchObject({ client: { ua: client.userAgent } })
  })

  it('says where to look when there is no log', async () => {
    expect(await keyless('tail', '--audit-dir', join(data, 'nowhere'))).toMatchObject({
      code: 1,
      err: expect.stringContaining('--audit-dir'),
    })
  })

  it('refuses a count that is none', async () => {
    expect(await keyless('tail', '-n', 'many')).toMatchObject({
      code: 1,
      err: expect.stringContaining('Write a number of entries'),
    })
  })

  it('finds the data directory in the settings, as the gateway does', async () => {
    await fill(1)
    await writeFile(join(data, 'keyless.yaml'), 'data_dir: .\n')
    const { out } = await keyless('tail', '-n', '1', '--config', join(data, 'keyless.yaml'))
    expect(out).toContain('log.sealed')
  })
})

describe('keyless log show', () => {
  it('prints decision and outcome of a call, by its id or by the number of either', async () => {
    const [, id = ''] = await fill(3)
    const byId = await keyless('show', id)
    expect(byId.out.split('\n')[0]).toBe(
      'ana authorised spiffe://acme.test/agents/triage for task “triage issue 42”; spiffe://acme.test/agents/triage called GET api.github.com/repos/acme/site/issues (github:issues.read): 200',
    )
    expect(byId.out).toContain('#3 call.decision')
    expect(byId.out).toContain('#4 call.outcome')
    expect((await keyless('show', '3')).out).toBe(byId.out)
    expect((await keyless('show', '4')).out).toBe(byId.out)
    const json = (await keyless('show', id, '--json')).out.trimEnd().split('\n')
    expect(json.map((line) => JSON.parse(line).kind)).toEqual(['call.decision', 'call.outcome'])
  })

  it('prints an entry that is of no call', async () => {
    await fill(1)
    expect((await keyless('show', '0')).out).toContain('#0 log.opened')
  })

  it('says when there is no such entry', async () => {
    await fill(1)
    for (const id of ['99', '0199f7a5-0000-7000-8000-000000000000']) {
      expect(await keyless('show', id)).toMatchObject({
        code: 1,
        out: '',
        err: expect.stringContaining(`no entry "${id}"`),
      })
    }
  })
})

describe('keyless log lineage', () => {
  it('prints the sentence and the chain with every delegation', async () => {
    const audit = testAudit(await openTestLog(dir))
    const event = audit.openCall(inbound())
    event.located(endpoint())
    const lineage = [
      { n: 0, type: 'human' as const, id: 'local:workstation#ana' },
      { n: 1, type: 'ai_agent' as const, id: 'agent:lead', grant: 'g-1' },
      { n: 2, type: 'ai_agent' as const, id: 'agent:child', grant: 'g-2' },
    ]
    event.authenticated(grant({ lineage }))
    await event.refused(new GatewayError('policy_denied', 'No.'))
    await audit.close()
    const { out } = await keyless('lineage', event.id)
    expect(out.split('\n').slice(0, 6)).toEqual([
      'ana authorised agent:lead for task “triage issue 42”; agent:lead delegated to agent:child; agent:child called GET api.github.com/repos/acme/site/issues (github:issues.read): refused with 403, policy_denied',
      '',
      'human local:workstation#ana',
      '  └ ai_agent agent:lead  under grant g-1',
      '    └ ai_agent agent:child  under grant g-2',
      'human vouched for by local:workstation',
    ])
  })

  it('names the policies by which every step was allowed', async () => {
    const audit = testAudit(await openTestLog(dir))
    const root = grant()
    const below = grant({
      ancestry: [{ id: root.id, authority: root.authority }],
      depth: 1,
      lineage: [...root.lineage, { n: 2, type: 'ai_agent', id: 'agent:child', grant: 'g-2', on_behalf: true }],
      id: 'g-2',
    })
    const { id, tenant, human, authority, agent } = { ...root, id: uuidv7() }
    const open = { kind: 'task.open', id, tenant, human, agent: agent.id, purpose: 'p', request: {} } as const
    const opening = audit.openInstruction(open)
    opening.proposed({ kind: 'task.open', grant: root, authority, agent, ttlS: 900 })
    opening.decided(decision({ policyIds: ['own#mint'] }))
    await opening.commit()
    const delegate = { ...open, id: uuidv7(), kind: 'grant.delegate', parent: root.id } as const
    const delegating = audit.openInstruction(delegate)
    delegating.proposed({ kind: 'grant.delegate', parent: root, grant: below, authority, agent: below.agent, ttlS: 60 })
    delegating.decided(decision({ policyIds: ['own#hand-on', 'own#small'] }))
    await delegating.commit()
    const event = audit.openCall(inbound())
    event.located(endpoint())
    event.authenticated(below)
    event.decided(decision({ policyIds: ['own#read'] }))
    await event.commit()
    event.closed(outcome())
    await audit.close()
    const { out } = await keyless('lineage', event.id)
    expect(out.split('\n')[0]).toBe(
      'ana authorised spiffe://acme.test/agents/triage for task “triage issue 42” under policy own#mint; spiffe://acme.test/agents/triage delegated to agent:child under policies own#hand-on, own#small; agent:child called GET api.github.com/repos/acme/site/issues (github:issues.read) under policy own#read: 200',
    )
    expect(out).toContain('    └ ai_agent agent:child  under grant g-2, attested by the gateway')
  })

  it('is about the last call of a known caller when none is named', async () => {
    const audit = testAudit(await openTestLog(dir))
    await call(audit)
    const last = await call(audit)
    const unknown = audit.openCall(inbound())
    await unknown.refused(new GatewayError('grant_missing', 'Present a grant.'))
    await audit.close()
    const { out } = await keyless('lineage')
    expect(out).toBe((await keyless('lineage', last)).out)
    expect(out).toContain('ana authorised')
  })

  it('says how to name a call when there is none', async () => {
    await (await openTestLog(dir)).close()
    const { code, err } = await keyless('lineage')
    expect(code).toBe(1)
    expect(err).toContain('"keyless log tail" lists them')
  })

  it('says so when nobody was known', async () => {
    const audit = testAudit(await openTestLog(dir))
    const event = audit.openCall(inbound())
    await event.refused(new GatewayError('grant_missing', 'Present a grant.'))
    await audit.close()
    expect((await keyless('lineage', event.id)).out).toContain(
      'someone unknown at 127.0.0.1 called GET api.github.com/repos/acme/site/issues (no known operation): refused with 407, grant_missing',
    )
  })
})

// What `fill` writes is no history that a gateway could have had: nobody issued its grants.
describe('keyless log verify --integrity', () => {
  it('says SOUND and exits 0', async () => {
    await fill(2)
    const { code, out } = await keyless('verify', '--integrity')
    expect([code, out.split('\n')[0]]).toEqual([0, `SOUND  ${ORIGIN}, 6 entries, 6 covered by the signed checkpoint`])
    expect(out).toContain('Use --public-key with a copy')
  })

  it('says TAMPERED, names the entry, and exits 1', async () => {
    await fill(2)
    const path = join(dir, 'entries.jsonl')
    await writeFile(path, (await readFile(path, 'utf8')).replace('triage issue 42', 'triage issue 43'))
    const { code, out } = await keyless('verify', '--integrity')
    expect([code, out]).toEqual([1, expect.stringContaining('TAMPERED')])
    expect(out.split('entry 1: the entry is not the one that was signed')).toHaveLength(2) // said once, not once a signed head
    expect(JSON.parse((await keyless('verify', '--integrity', '--json')).out)).toMatchObject({
      ok: false,
      first_bad: { index: 1 },
    })
  })

  it('lets whoever tampered say nothing but what is quoted: no line of theirs passes for the verdict', async () => {
    await fill(1)
    const path = join(dir, 'entries.jsonl')
    const text = (await readFile(path, 'utf8')).replace('"v":"ar/1"', '"v":"\\u001b[2J\\u001b[HSOUND\\n\\u009b8m"')
    await writeFile(path, text)
    for (const args of [['verify'], ['verify', '--json']]) {
      const { code, out } = await keyless(...args)
      expect([code, out]).toEqual([1, expect.stringMatching(/\\u/)])
      expect(out).not.toMatch(STEERING)
      expect(out).not.toMatch(/^SOUND|HSOUND\n/m)
    }
  })

  it('trusts the key it is given, not the one beside the log', async () => {
    await fill(1)
    const copy = join(data, 'copy.pub')
    await copyFile(join(dir, 'log.pub'), copy)
    expect((await keyless('verify', '--integrity', '--public-key', copy)).code).toBe(0)
    const other = join(data, 'other')
    await (await openTestLog(other)).close()
    expect((await keyless('verify', '--public-key', join(other, 'log.pub'))).code).toBe(1)
  })

  it('exits 2 when it cannot judge', async () => {
    expect((await keyless('verify', '--audit-dir', join(data, 'nowhere'))).code).toBe(2)
    await fill(1)
    expect(await keyless('verify', '--public-key', join(data, 'nowhere'))).toMatchObject({
      code: 2,
      err: expect.stringContaining('public key'),
    })
  })
})

describe('the reader', () => {
  it('finds every entry of a log larger than its blocks, by number and by call', { timeout: 30_000 }, async () => {
    const ids = await fill(800)
    const reader = await openReader(dir)
    const entries = await entriesOf(dir)
    for (const seq of [0, 1, 2, 399, 800, 1200, 1599, 1600, 1601]) expect(await reader.bySeq(seq)).toEqual(entries[seq])
    expect(await reader.bySeq(1602)).toBeUndefined()
    for (const i of [0, 1, 399, 798, 799]) {
      expect((await reader.byReq(ids[i] ?? '')).map((entry) => entry.seq)).toEqual([1 + 2 * i, 2 + 2 * i])
    }
    for (const count of [0, 1, 700, 1602, 5000]) {
      const last = []
      for await (const entry of reader.tail(count)) last.push(entry.seq)
      expect(last).toEqual(entries.slice(Math.max(0, entries.length - count)).map((entry) => entry.seq))
    }
    await reader.close()
  })
})
