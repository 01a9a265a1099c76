/** What policies read of a call, and what their yes obliges to: two gateways on one Redis, real calls, each promise by itself. */
import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { say } from '../invariant/agent.fixture.ts'
import { call, delegate, idOf, open, openPair, type Pair, said } from '../invariant/pair.fixture.ts'
import { entriesOf } from '../invariant/services.fixture.ts'
import { type Receiver, startReceiver } from './receiver.fixture.ts'

const POLICIES = `
@id("open") @owner("test")
permit (principal, action in [Action::"mint", Action::"delegate"], resource) unless { principal.labels.contains("reader") };

@id("readers") @owner("test") @read_only("true")
permit (principal, action == Action::"mint", resource) when { principal.labels.contains("reader") };

@id("calls") @owner("test")
permit (principal, action in [Action::"read", Action::"write"], resource is Endpoint)
unless { resource.labels.contains("ruled") };

@id("no-secrets-out") @owner("security")
forbid (principal, action == Action::"notes:send", resource) when { context.past_restricted > 0 };

@id("three-drafts") @owner("test")
permit (principal, action == Action::"notes:draft", resource)
when { if context.past.hasTag("notes:draft") then context.past.getTag("notes:draft") < 3 else true };

@id("limited") @owner("test") @rate("3/3600")
permit (principal, action == Action::"notes:limited", resource);

@id("reads-only") @owner("test") @read_only("true")
permit (principal, action in [Action::"notes:reads", Action::"notes:changes"], resource);

@id("masked") @owner("test") @redact("/head,/body") @notify("security")
permit (principal, action in [Action::"notes:masked", Action::"notes:packed", Action::"notes:unreadable"], resource);

@id("narrow") @owner("test") @downscope("resource")
permit (principal, action == Action::"notes:narrow", resource);

@id("small-payments") @owner("test") @log("full")
permit (principal, action == Action::"notes:pay", resource)
when { context.params has amount && context.params.amount <= 100 && context.params has to && context.params.to == "ana" };

@id("off-plan") @owner("test") @revoke("task")
forbid (principal, action == Action::"notes:planned", resource) when { context.has_plan && !context.on_plan };
@id("planned") @owner("test")
permit (principal, action == Action::"notes:planned", resource);

@id("not-the-last") @owner("test")
permit (principal, action == Action::"notes:frugal", resource)
when { context has calls_left && context.calls_left > 2 };

@id("from-here") @owner("test")
permit (principal, action == Action::"notes:where", resource)
when {
  context.source_regions.contains("here") && context.door == "reverse" && !context.websocket &&
  context.proof.contains("bearer") && context.root_agent == "${idOf('lead')}" &&
  context.parent_agent == "${idOf('lead')}" && context.lineage_agents.contains("${idOf('mid')}") &&
  context.lineage.contains({ n: 2, type: "ai_agent", id: "${idOf('mid')}", on_behalf: true }) && !context.break_glass
};
`

const RULED = ['ruled']
let pair: Pair
let receiver: Receiver

beforeAll(async () => {
  receiver = await startReceiver()
  pair = await openPair({
    services: [
      {
        name: 'notes',
        operations: {
          read: { match: ['GET /echo/{owner}'], access: 'read' },
          secret: { match: ['GET /echo/secret'], access: 'read', sensitivity: 'restricted' },
          send: { match: ['POST /echo/send'], access: 'write' },
          draft: { match: ['POST /echo/draft'], access: 'write', labels: RULED },
          limited: { match: ['GET /echo/limited'], access: 'read', labels: RULED },
          reads: { match: ['GET /echo/reads'], access: 'read', labels: RULED },
          changes: { match: ['POST /echo/reads'], access: 'write', labels: RULED },
          masked: { match: ['GET /echo/masked'], access: 'read', labels: RULED },
          packed: { match: ['GET /gzip/masked'], access: 'read', labels: RULED },
          unreadable: { match: ['GET /stream'], access: 'read', labels: RULED },
          narrow: { match: ['GET /echo/narrow'], access: 'read', labels: RULED },
          pay: {
            match: ['POST /echo/pay'],
            access: 'write',
            labels: RULED,
            params: { to: 'query.to', amount: { from: 'body./amount', type: 'long' } },
          },
          planned: { match: ['GET /echo/planned'], access: 'read', labels: RULED },
          frugal: { match: ['GET /echo/frugal'], access: 'read', labels: RULED },
          where: { match: ['GET /echo/where'], access: 'read', labels: RULED },
        },
      },
    ],
    policies: { text: POLICIES, only: true },
    settings: {
      grants: { max_depth: 8 },
      regions: { here: ['127.0.0.0/8'] },
      webhooks: {
        security: { url: `${receiver.url}/hook`, format: 'slack', notify: ['security'], addresses: ['127.0.0.0/8'] },
      },
    },
  })
})

afterAll(async () => {
  await pair.stop()
  await receiver.stop()
})

const at = (path: string) => `/notes/echo/${path}`
const one = () => pair.replicas[0]
const two = () => pair.replicas[1]

function post(path: string, handle: string, body: string, replica = one()) {
  const { proxyPort } = replica
  const head = `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1:${proxyPort}\r\nAuthorization: Bearer ${handle}\r\nContent-Type: application/json\r\n`
  return say(proxyPort, `${head}Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`)
}

async function decisionsOn(operation: string, replica = one()) {
  const entries = await entriesOf(replica.settings.dataDir)
  return entries.filter(
    (entry) => entry.kind === 'call.decision' && (entry.target as { operation?: string }).operation === operation,
  )
}

describe('what the task did before', () => {
  it('keeps what was read from leaving, at every replica and under every grant of the task', async () => {
    const task = await open(one())
    const child = await delegate(one(), task)
    expect(said(await call(one(), task.handle, at('send'), 'POST'))).toBe(200)
    expect(said(await call(two(), child.handle ?? '', at('secret')))).toBe(200)
    for (const replica of pair.replicas)
      for (const handle of [task.handle, child.handle ?? ''])
        expect(said(await call(replica, handle, at('send'), 'POST'))).toBe('policy_denied')
    const other = await open(two())
    expect(said(await call(two(), other.handle, at('send'), 'POST'))).toBe(200) // another task did nothing
  })

  it('is known before a request is decided that says the rest of its body later', async () => {
    const { handle } = await open(one())
    const { proxyPort } = one()
    const head = `POST ${at('send')} HTTP/1.1\r\nHost: 127.0.0.1:${proxyPort}\r\nAuthorization: Bearer ${handle}\r\nContent-Length: 6\r\nConnection: close\r\n\r\n`
    const before = pair.upstream.requests.length
    const { promise: isRead, resolve } = Promise.withResolvers<string>()
    const sending = sayInTwo(proxyPort, head, isRead)
    expect(said(await call(two(), handle, at('secret')))).toBe(200)
    resolve('secret')
    expect(said(await sending)).toBe('policy_denied')
    expect(pair.upstream.requests.length - before).toBe(1)
  })

  it('is counted with the call: of many at once no more pass than policy says', async () => {
    const task = await open(one())
    const child = await delegate(one(), task)
    const before = pair.upstream.requests.length
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, i) =>
        call(pair.replicas[i % 2] ?? one(), (i % 3 === 0 ? task.handle : child.handle) ?? '', at('draft'), 'POST'),
      ),
    )
    const codes = answers.map(said)
    expect(codes.filter((code) => code === 200)).toHaveLength(3)
    expect(codes.filter((code) => code === 'policy_denied')).toHaveLength(9)
    expect(pair.upstream.requests.length - before).toBe(3)
  })

  it('survives a store that loses it, where this process has seen it', async () => {
    const { handle, task } = await open(one())
    expect(said(await call(one(), handle, at('secret')))).toBe(200)
    expect(said(await call(one(), handle, at('send'), 'POST'))).toBe('policy_denied')
    const { redis } = one().gateway.house
    const keys = (await redis?.keys('*')) ?? []
    const ours = keys.filter((key) => key.includes(`past/${task}`))
    expect(ours).toHaveLength(1)
    await redis?.del(...ours)
    expect(said(await call(one(), handle, at('send'), 'POST'))).toBe('policy_denied')
  })
})

it('what cannot be asked of the store is refused, not taken for none', async () => {
  const { handle } = await open(one())
  expect(said(await call(one(), handle, at('send'), 'POST'))).toBe(200)
  pair.redis.pause?.()
  try {
    expect(said(await call(one(), handle, at('send'), 'POST'))).toBe('store_unavailable')
  } finally {
    pair.redis.resume?.()
  }
})

describe('a plan', () => {
  it('ends the task whose agent leaves it, at every replica', async () => {
    const task = await open(one(), { plan: ['notes:read', 'notes:secret'] } as object)
    expect(said(await call(one(), task.handle, at('acme')))).toBe(200)
    expect(said(await call(one(), task.handle, at('planned')))).toBe('policy_denied')
    await expect.poll(async () => said(await call(two(), task.handle, at('acme')))).toBe('grant_revoked')
    expect(said(await call(one(), task.handle, at('acme')))).toBe('grant_revoked')
    const [entry] = await decisionsOn('notes:planned')
    expect(entry?.decision).toMatchObject({ effect: 'deny', obligations: { revoke: 'task' } })
  })

  it('is not widened by the agent that it is for', async () => {
    const task = await open(one(), { plan: ['notes:read'] } as object)
    const intent = (body: object) => asHolderIntent(task.task, task.handle, body)
    expect(await intent({ purpose: 'more', plan: ['notes:planned'] })).toMatchObject({ code: 'delegation_refused' })
    const next = await intent({ purpose: 'something else' })
    expect(said(await call(one(), next.handle ?? '', at('planned')))).toBe('policy_denied') // still planned as before
  })

  it('foresees only what there is', async () => {
    await expect(open(one(), { plan: ['notes:nothing'] } as object)).rejects.toThrow(/plan names "notes:nothing"/)
  })

  it('says nothing where nobody planned', async () => {
    const { handle } = await open(one())
    expect(said(await call(one(), handle, at('planned')))).toBe(200)
  })
})

describe('an obligation of policy', () => {
  it('@rate counts the calls of an agent over its tasks and over replicas', async () => {
    const tasks = [await open(one()), await open(two())]
    const answers = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        call(pair.replicas[i % 2] ?? one(), tasks[i % 2]?.handle ?? '', at('limited')),
      ),
    )
    expect(answers.map(said).filter((code) => code === 200)).toHaveLength(3)
    expect(answers.map(said).filter((code) => code === 'limit_exceeded')).toHaveLength(5)
    const others = await open(one(), { agent: idOf('mid') })
    expect(said(await call(one(), others.handle, at('limited')))).toBe(200) // that of another agent is its own
  })

  it('@read_only refuses what changes, and a grant for it', async () => {
    const { handle } = await open(one())
    expect(said(await call(one(), handle, at('reads')))).toBe(200)
    expect(said(await call(one(), handle, at('reads'), 'POST'))).toBe('policy_denied')
    const asking = (scope: string) => open(one(), { agent: idOf('leaf'), scope })
    await expect(asking('notes:*')).rejects.toThrow(/policy allows only what reads here/)
    await expect(asking('notes:read notes:send')).rejects.toThrow(/notes:send/)
    expect((await asking('notes:read notes:secret')).scope).toBe('notes:read notes:secret')
  })

  it('@redact keeps members of the answer here, and the whole answer where they cannot be found', async () => {
    const { handle } = await open(one())
    const answer = await call(one(), handle, at('masked'), 'GET', 'x-note: between us\r\n')
    expect(said(answer)).toBe(200)
    const text = answer.bytes.toString()
    const body = text.slice(text.indexOf('\r\n\r\n') + 4)
    expect(JSON.parse(body)).toMatchObject({ method: 'GET', head: '[redacted]', body: '[redacted]' })
    expect(text).not.toContain('between us')
    expect(said(await call(one(), handle, '/notes/stream?bytes=100'))).toBe('answer_withheld')
    const packed = await call(
      one(),
      handle,
      '/notes/gzip/masked',
      'GET',
      'x-note: between us\r\nAccept-Encoding: gzip\r\n',
    )
    expect(packed.bytes.toString()).toContain('"head":"[redacted]"') // unpacked, and not packed again
    expect(packed.bytes.toString()).not.toContain('between us')
    const headOnly = await call(one(), handle, at('masked'), 'HEAD')
    expect(said(headOnly)).toBe(200)
    const [entry] = await decisionsOn('notes:masked')
    expect(entry?.decision).toMatchObject({ obligations: { redact: ['/body', '/head'], notify: ['security'] } })
  })

  it('@notify tells whoever the settings send it to, of these decisions and no others', async () => {
    const { handle } = await open(one())
    expect(said(await call(one(), handle, at('acme')))).toBe(200)
    expect(said(await call(one(), handle, at('masked')))).toBe(200)
    const told = () => receiver.received.map(({ body }) => body)
    await expect.poll(() => told().join()).toContain('/echo/masked')
    expect(told().some((text) => text.includes('/echo/acme'))).toBe(false)
  })

  it('@downscope uses no credential that is wider, nor the one that lies there for other calls', async () => {
    const { handle } = await open(one())
    expect(said(await call(one(), handle, at('acme')))).toBe(200) // now it lies there
    const before = pair.upstream.requests.length
    expect(said(await call(one(), handle, at('narrow')))).toBe('credential_too_wide')
    expect(pair.upstream.requests.length).toBe(before)
  })

  it('@log("full") writes down what the service file names, and of everything else the names', async () => {
    const { handle } = await open(one())
    expect(said(await post(`${at('pay')}?to=ana&note=hush`, handle, '{"amount":12,"memo":"hush"}'))).toBe(200)
    const [entry] = await decisionsOn('notes:pay')
    const asked = (entry?.decision as { asked?: Record<string, unknown> } | undefined)?.asked
    expect(asked).toMatchObject({ params: { amount: 12, to: 'ana' }, content_type: 'application/json' })
    expect(asked?.fields).toContain('authorization')
    const log = readFileSync(`${one().settings.dataDir}/audit/entries.jsonl`, 'utf8')
    for (const secret of ['hush', handle]) expect(log).not.toContain(secret)
  })
})

describe('what a call says', () => {
  const pay = async (query: string, body: string) => {
    const { handle } = await open(one())
    return said(await post(`${at('pay')}${query}`, handle, body))
  }

  it.each([
    ['as policy allows', '?to=ana', '{"amount":100}', 200],
    ['too much', '?to=ana', '{"amount":101}', 'policy_denied'],
    ['nothing of it', '?to=ana', '{}', 'policy_denied'],
    ['somebody else', '?to=eve', '{"amount":1}', 'policy_denied'],
    ['two values in one query', '?to=ana&to=eve', '{"amount":1}', 'request_malformed'],
    ['two spellings of one name', '?to=ana&TO=eve', '{"amount":1}', 'request_malformed'],
    ['two amounts', '?to=ana', '{"amount":1,"amount":1000}', 'constraint_unmet'],
    ['two spellings of the amount', '?to=ana', '{"amount":1,"Amount":1000}', 'constraint_unmet'],
    ['an amount in words', '?to=ana', '{"amount":"1"}', 'request_malformed'],
    ['half an amount', '?to=ana', '{"amount":1.5}', 'request_malformed'],
    ['more than any number', '?to=ana', '{"amount":1e400}', 'request_malformed'],
    ['no JSON', '?to=ana', 'amount=1', 'constraint_unmet'],
  ])('is decided on: %s', async (_, query, body, expected) => {
    const before = pair.upstream.requests.length
    expect(await pay(query, body)).toBe(expected)
    expect(pair.upstream.requests.length - before).toBe(expected === 200 ? 1 : 0)
  })
})

it('policies see what is left of a budget, and where a call comes from', async () => {
  const budget = (max_calls: number) => ({
    scope: undefined,
    authorization_details: [{ type: 'keyless_access', operations: ['notes:*'], constraints: { max_calls } }],
  })
  const { handle } = await open(one(), budget(4) as object)
  const codes = []
  for (let i = 0; i < 3; i++) codes.push(said(await call(pair.replicas[i % 2] ?? one(), handle, at('frugal'))))
  expect(codes).toEqual([200, 200, 'policy_denied'])
  const unbounded = await open(one())
  expect(said(await call(one(), unbounded.handle, at('frugal')))).toBe('policy_denied')
  const child = await delegate(one(), unbounded)
  expect(said(await call(one(), child.handle ?? '', at('where')))).toBe(200)
  expect(said(await call(one(), unbounded.handle, at('where')))).toBe('policy_denied')
})

it('a task that was open before policy looked at the past has none that is known, and is refused', async () => {
  const [file] = one().settings.policies.filter((path) => path.endsWith('.cedar'))
  if (file === undefined) throw new Error('the policies are a file')
  const forgetful = POLICIES.replaceAll(/@id\("(?:no-secrets-out|three-drafts)"\)[\s\S]*?;\n/g, '')
  const { policies } = one().gateway.house
  writeFileSync(file, forgetful)
  await policies.reload(undefined)
  const before = await open(one())
  writeFileSync(file, POLICIES)
  await policies.reload(undefined)
  expect(said(await call(one(), before.handle, at('acme')))).toBe(200) // nothing there reads it
  const refused = await call(one(), before.handle, at('send'), 'POST')
  expect(said(refused)).toBe('policy_denied')
  expect(refused.bytes.toString()).toContain('Open a new task')
  expect(said(await call(one(), (await open(one())).handle, at('send'), 'POST'))).toBe(200)
})

async function sayInTwo(port: number, head: string, later: Promise<string>) {
  const { connect } = await import('node:net')
  const socket = connect(port, '127.0.0.1')
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.write(head)
  socket.write(await later)
  await new Promise((resolve) => socket.once('close', resolve))
  const bytes = Buffer.concat(chunks)
  return { status: Number(/^HTTP\/1\.1 (\d+)/.exec(bytes.toString())?.[1] ?? 0), bytes }
}

async function asHolderIntent(task: string, handle: string, body: object) {
  const answer = await fetch(`${one().gateway.control}/tasks/${task}/intent`, {
    method: 'POST',
    headers: { authorization: `Bearer ${handle}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  return (await answer.json()) as { handle?: string; code?: string }
}
