/**
 * The gateway as a decision point (AuthZEN 1.0): it says what it would decide on a call, to those who prove who they are, and nothing
 * comes of it. Questions of the interoperability scenario are answered, and its decisions are those of Rego in wasm.
 */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { type IncomingMessage, request } from 'node:http'
import { json } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { readOpaBundle } from '../../gateway/policy/outside/opa-bundle.ts'
import { OpaThread } from '../../gateway/policy/outside/opa-thread.ts'
import { entriesOf, type Site, writeSite } from '../invariant/services.fixture.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'

const POLICIES = `@id("calls") @owner("tests") permit (principal, action, resource) unless { action == Action::"echo:post" };
@id("posts") @owner("tests") @ttl("60") @single_use("true")
permit (principal, action == Action::"echo:post", resource) when { context.source_ip.isInRange(ip("10.0.0.0/8")) };
@id("asked") @owner("tests") @approval("human") permit (principal, action == Action::"echo:asked", resource);
`
const READER = 'a-token-of-a-reader-of-some-length'

interface Vectors {
  readonly evaluation: readonly { readonly request: Question; readonly expected: boolean }[]
  readonly evaluations: readonly { readonly request: object; readonly expected: readonly { decision: boolean }[] }[]
}

interface Question {
  readonly subject: { readonly type: string; readonly id: string }
  readonly action: { readonly name: string }
  readonly resource: object
}

const vectors = JSON.parse(await readFile(new URL('../vectors/authzen/todo.json', import.meta.url), 'utf8')) as Vectors

let echo: EchoUpstream
let site: Site
let gateway: TestGateway
let door: string

beforeAll(async () => {
  echo = await startEcho()
  const operations = {
    get: { match: ['GET /thing/{name}'], access: 'read' },
    post: { match: ['POST /thing/{name}'], access: 'write' },
    asked: { match: ['GET /asked'], access: 'read' },
  } as never
  site = await writeSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    { services: [{ name: 'echo', operations }], policies: { text: POLICIES, only: true } },
  )
  process.env.READER_TOKEN = READER
  const audit = { readers: { siem: { token: { env: 'READER_TOKEN' } } } }
  gateway = await startGateway(`${site.yaml}${stringify({ audit })}`)
  door = `http://127.0.0.1:${new URL((await gateway.control.status()).control).port}`
})

afterAll(async () => {
  delete process.env.READER_TOKEN
  await gateway?.stop()
  await Promise.all([echo.stop(), site.remove()])
})

const at = (path: string) => ({ type: 'url', id: `https://echo.keyless.test:${echo.tlsPort}${path}` })

async function ask(
  body: unknown,
  token: string | undefined,
  o: { path?: string; fields?: Record<string, string> } = {},
) {
  const answer = await fetch(`${door}/access/v1/${o.path ?? 'evaluation'}`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      ...(token && { authorization: `Bearer ${token}` }),
      ...o.fields,
    },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
  return { status: answer.status, headers: answer.headers, body: (await answer.json()) as never as Answered }
}

interface Answered {
  readonly decision: boolean
  readonly context?: { readonly reason?: string; readonly obligations?: unknown }
  readonly evaluations?: readonly Answered[]
}

async function opened() {
  const { task, grant, handle = '' } = await gateway.openTask('echo:*')
  const subject = { type: 'grant', id: grant }
  return { task, handle, subject, agent: (await gateway.control.status()).default_agent ?? '' }
}

const get = { name: 'GET' }

describe('who holds a grant', () => {
  it('is told what would be decided on its own calls, with what that obliges to', async () => {
    const { handle, subject, agent } = await opened()
    expect((await ask({ subject, action: get, resource: at('/thing/a') }, handle)).body).toEqual({ decision: true })
    const named = { name: 'echo:get' }
    expect(
      (await ask({ subject: { type: 'agent', id: agent }, action: named, resource: at('/thing/a') }, handle)).body,
    ).toEqual({ decision: true })
    expect((await ask({ subject, action: { name: 'POST' }, resource: at('/thing/a') }, handle)).body).toMatchObject({
      ...{ decision: false, context: { reason: 'policy_denied' } },
    })
    expect((await ask({ subject, action: get, resource: at('/asked') }, handle)).body).toMatchObject({
      ...{ decision: false, context: { reason: 'approval_required' } },
    })
    expect(
      (await ask({ subject, action: { name: 'echo:post' }, resource: at('/thing/a') }, handle)).body,
    ).toMatchObject({
      ...{ decision: false, context: { reason: 'scope_exceeded' } },
    })
  })

  it('learns nothing about other grants, not even whether there are any', async () => {
    const [mine, other] = [await opened(), await opened()]
    const question = (id: string) => ({ subject: { type: 'grant', id }, action: get, resource: at('/thing/a') })
    const unknown = await ask(question('00000000-0000-7000-8000-000000000000'), mine.handle)
    expect(unknown.body).toMatchObject({ decision: false, context: { reason: 'grant_invalid' } })
    expect((await ask(question(other.subject.id), mine.handle)).body).toEqual(unknown.body)
  })

  it('says nothing of its address that policy would believe', async () => {
    const { handle, subject } = await opened()
    const asked = { subject, action: { name: 'POST' }, resource: at('/thing/a'), context: { source_ip: '10.1.2.3' } }
    expect((await ask(asked, handle)).body.decision).toBe(false)
    expect((await ask(asked, READER)).body).toEqual({
      ...{
        decision: true,
        context: {
          obligations: [
            { type: 'ttl', value: 60 },
            { type: 'single_use', value: true },
          ],
        },
      },
    })
  })

  it('is nobody once its grant has ended', async () => {
    const { handle, subject, task } = await opened()
    const question = { subject, action: get, resource: at('/thing/a') }
    await gateway.control.completeTask(task)
    expect((await ask(question, handle)).status).toBe(401)
    expect((await ask(question, READER)).body).toMatchObject({ decision: false, context: { reason: 'grant_revoked' } })
  })
})

describe('a reader', () => {
  it('asks about every living grant, by all three semantics, with defaults', async () => {
    const { subject } = await opened()
    const all = {
      ...{ subject, action: get },
      evaluations: [
        { resource: at('/thing/a') },
        { action: { name: 'POST' }, resource: at('/thing/a') },
        { resource: at('/thing/b') },
      ],
    }
    const by = async (evaluations_semantic?: string) =>
      (
        await ask({ ...all, ...(evaluations_semantic && { options: { evaluations_semantic } }) }, READER, {
          path: 'evaluations',
        })
      ).body.evaluations?.map(({ decision }) => decision)
    expect(await by()).toEqual([true, false, true])
    expect(await by('execute_all')).toEqual([true, false, true])
    expect(await by('deny_on_first_deny')).toEqual([true, false])
    expect(await by('permit_on_first_permit')).toEqual([true])
    const lacking = { subject, evaluations: [{ action: get }, { action: get, resource: at('/thing/a') }] }
    expect((await ask(lacking, READER, { path: 'evaluations' })).body.evaluations).toMatchObject([
      { decision: false, context: { reason: 'request_malformed' } },
      { decision: true },
    ])
    const single = await ask({ subject, action: get, resource: at('/thing/a') }, READER, { path: 'evaluations' })
    expect(single.body).toEqual({ decision: true })
  })

  it('is recorded, and what was asked leads to nothing', async () => {
    const { subject } = await opened()
    const calls = echo.requests.length
    await ask({ subject, action: get, resource: at('/thing/a?token=in-the-query') }, READER)
    const entries = await entriesOf(gateway.settings.dataDir)
    const found = entries.findLast(({ kind }) => kind === 'policy.evaluated') as never as { facts: object }
    expect(found.facts).toMatchObject({ by: 'reader:siem', decisions: [`${subject.id} echo:get allow`] })
    expect(JSON.stringify(entries)).not.toContain('in-the-query')
    expect(echo.requests.length).toBe(calls)
  })
})

it('answers the person at the socket about every grant', async () => {
  const { subject } = await opened()
  const call = request({
    ...{ socketPath: gateway.settings.listen.controlSocket, path: '/access/v1/evaluation', method: 'POST' },
    headers: { 'content-type': 'application/json' },
  })
  call.end(JSON.stringify({ subject, action: get, resource: at('/thing/a') }))
  const [answer] = (await once(call, 'response')) as [IncomingMessage]
  expect(await json(answer)).toEqual({ decision: true })
})

describe('the HTTP of it', () => {
  it('takes every question of the interoperability scenario, and knows none of its users', async () => {
    for (const { request } of vectors.evaluation.filter((_, i) => i % 8 === 0)) {
      const { status, body } = await ask(request, READER)
      expect([status, body.decision]).toEqual([200, false])
    }
    for (const { request, expected } of vectors.evaluations) {
      const { status, body } = await ask(request, READER, { path: 'evaluations' })
      expect([status, body.evaluations?.map(({ decision }) => decision)]).toEqual([200, expected.map(() => false)])
    }
  })

  it('answers 401 to whoever is nobody, 400 to what is no question, and gives X-Request-ID back in all of it', async () => {
    const { subject } = await opened()
    const fields = { 'x-request-id': 'bfe9eb29-ab87-4ca3-be83-a1d5d8305716' }
    const question = { subject, action: get, resource: at('/thing/a') }
    const answers = [
      await ask(question, READER, { fields }),
      await ask(question, undefined, { fields }),
      await ask(question, 'somebody-else-of-some-length', { fields }),
      await ask({ ...question, subject: undefined }, READER, { fields }),
      await ask({ ...question, action: { name: 7 } }, READER, { fields }),
      await ask('{"subject":', READER, { fields }),
      await ask({ ...question, evaluations: [{}], options: { evaluations_semantic: 'some' } }, READER, {
        fields,
        path: 'evaluations',
      }),
      await ask({ subject }, READER, { fields, path: 'evaluations' }),
    ]
    expect(answers.map(({ status }) => status)).toEqual([200, 401, 401, 400, 400, 400, 400, 400])
    for (const { headers } of answers) expect(headers.get('x-request-id')).toBe(fields['x-request-id'])
  })

  it('says where it is', async () => {
    const answer = await fetch(`${door}/.well-known/authzen-configuration`)
    const { publicUrl } = gateway.settings
    expect([answer.status, await answer.json()]).toEqual([
      200,
      {
        policy_decision_point: publicUrl,
        access_evaluation_endpoint: `${publicUrl}/access/v1/evaluation`,
        access_evaluations_endpoint: `${publicUrl}/access/v1/evaluations`,
      },
    ])
  })
})

it('decides the interoperability scenario as its authors do, in Rego that OPA compiled', async () => {
  const bundle = readOpaBundle(await readFile(new URL('../vectors/opa/bundle.tar.gz', import.meta.url)))
  const thread = new OpaThread({ ...bundle, entrypoint: 'keyless/todo' })
  const decide = async (question: object) => thread.evaluate(question, AbortSignal.timeout(5_000))
  for (const { request, expected } of vectors.evaluation) expect(await decide(request)).toEqual({ decision: expected })
  await thread.close()
})
