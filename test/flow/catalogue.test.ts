/** Shipped services with the real SDKs of their vendors, as they are found under `keyless run`: placeholders in, our credential out. */
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { openForwarder } from '../../gateway/cli/run/forwarder.ts'
import { openSurroundings } from '../../gateway/cli/run/surroundings.ts'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { basic, codeOf, reverse } from '../invariant/agent.fixture.ts'
import { type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { onPath, pythonWith } from '../rig/cache.ts'
import { newCanary } from '../rig/canary.ts'
import { ROOT, run } from '../rig/process.ts'

const SERVICES = ['openai', 'anthropic', 'github', 'slack', 'stripe', 'google-gmail', 'aws-sts'] as const
const ACCESS_KEY_ID = 'AKIATESTOFKEYLESSXYZ'
const STS = `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>arn:aws:iam::1:user/a</Arn><UserId>a</UserId><Account>1</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`
/** Host → what its API answers to the one call. */
const ANSWERS: Readonly<Record<string, object | string>> = {
  'api.openai.com': { object: 'list', data: [] },
  'api.anthropic.com': { data: [], has_more: false, first_id: null, last_id: null },
  'api.github.com': { login: 'ana' },
  'slack.com': { ok: true },
  'api.stripe.com': { object: 'balance', available: [] },
  'gmail.googleapis.com': { messages: [] },
  'sts.amazonaws.com': STS,
}

interface Arrived {
  readonly host: string
  readonly path: string
  /** All header fields and the path, as one text. */
  readonly text: string
}

const canary = newCanary().replaceAll(/[^\w+=]/g, '')
const arrived: Arrived[] = []
let server: Server
let port: number
let site: OpenSite

beforeAll(async () => {
  const tls = await throwAwayTls(Object.keys(ANSWERS))
  server = createServer({ key: tls.key, cert: tls.cert }, (request, response) => {
    const host = (request.headers.host ?? '').replace(/:\d+$/, '')
    const answer = ANSWERS[host] ?? {}
    arrived.push({ host, path: request.url ?? '', text: `${request.url} ${request.rawHeaders.join(' ')}` })
    request.resume().on('end', () => {
      response.setHeader('Content-Type', typeof answer === 'string' ? 'text/xml' : 'application/json')
      response.end(typeof answer === 'string' ? answer : JSON.stringify(answer))
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  port = (server.address() as AddressInfo).port
  const services = await Promise.all(
    SERVICES.map(async (name) => {
      const file = parse(await readFile(join(ROOT, 'policies', 'services', `${name}.yaml`), 'utf8'))
      const hosts = (file.hosts as string[]).filter((host) => !host.includes('{'))
      const operations = Object.fromEntries(
        Object.entries(file.operations as Record<string, { match: string[] }>).map(([id, one]) => [
          id,
          { ...one, match: one.match.filter((text) => !text.includes('.{region}.')) },
        ]),
      )
      return { ...file, hosts, operations, ports: [port], addresses: ['127.0.0.1/32'] }
    }),
  )
  const aws = {
    provider: 'aws',
    region: 'us-east-1',
    session: 'none',
    source: { access_key_id: { env: 'KEYLESS_TEST_AWS_ID' }, secret_access_key: { env: 'KEYLESS_TEST_AWS_SECRET' } },
  }
  process.env.KEYLESS_TEST_AWS_ID = ACCESS_KEY_ID
  process.env.KEYLESS_TEST_AWS_SECRET = canary
  const standing = SERVICES.filter((name) => name !== 'aws-sts').map((name) => [name, canary])
  site = await openSite({ port, caPem: tls.caPem }, { services, credentials: { ...Object.fromEntries(standing), aws } })
})

afterAll(async () => {
  await site.stop()
  server.close()
})

/** Runs a program as `keyless run` would, and gives what it says of each SDK. */
async function drive(command: readonly string[]): Promise<Record<string, unknown>> {
  const { control, proxyPort } = site.gateway
  const status = await control.status()
  const task = await site.gateway.openTask(SERVICES.map((name) => `${name}:*`).join(' '), 'make one call of each')
  const forwarder = await openForwarder({
    gateway: { host: '127.0.0.1', port: proxyPort },
    authorization: basic(task.handle ?? ''),
  })
  const inherited = { PATH: process.env.PATH, HOME: process.env.HOME }
  const { env, remove } = await openSurroundings({ status, forwarder, inherited, java: false })
  try {
    const [program = '', ...args] = command
    const { stdout, stderr } = await run(program, [...args, String(port)], { env })
    if (stdout === '') throw new Error(stderr)
    expect(stdout + stderr).not.toContain(canary)
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { name: string; ok: boolean; why?: string })
    return Object.fromEntries(lines.map(({ name, ok, why }) => [name, ok || why]))
  } finally {
    await forwarder.close()
    await remove()
  }
}

function since(count: number): Record<string, Arrived> {
  return Object.fromEntries(arrived.slice(count).map((one) => [one.host, one]))
}

describe('under `keyless run` start with placeholders and reach the upstream with our credential', () => {
  it('openai, @anthropic-ai/sdk, octokit, @slack/web-api and stripe for Node', { timeout: 60_000 }, async () => {
    const before = arrived.length
    const said = await drive([process.execPath, join(ROOT, 'test/flow/programs/sdks.mjs')])
    expect(said).toEqual({ openai: true, anthropic: true, github: true, slack: true, stripe: true })
    const seen = since(before)
    for (const host of ['api.openai.com', 'api.anthropic.com', 'api.github.com', 'slack.com', 'api.stripe.com']) {
      expect(seen[host]?.text, host).toContain(canary)
      expect(seen[host]?.text, host).not.toMatch(/keyless-?placeholder|xoxb-keyless/i)
    }
  })

  it('openai, anthropic, slack_sdk, stripe, google-api-python-client and boto3 for Python', {
    timeout: 300_000,
  }, async (context) => {
    if (!onPath('python3') && !process.env.CI) return context.skip('this machine has no python3')
    const python = await pythonWith(join(ROOT, 'test/matrix/requirements.txt'))
    const before = arrived.length
    const said = await drive([python, join(ROOT, 'test/flow/programs/sdks.py')])
    expect(said).toEqual({ openai: true, anthropic: true, slack: true, stripe: true, google: true, boto3: true })
    const seen = since(before)
    for (const host of ['api.openai.com', 'api.anthropic.com', 'slack.com', 'api.stripe.com', 'gmail.googleapis.com'])
      expect(seen[host]?.text, host).toContain(canary)
    // The key itself signs and never travels.
    expect(seen['sts.amazonaws.com']?.text).toContain(`Credential=${ACCESS_KEY_ID}/`)
    for (const { text } of Object.values(seen))
      expect(text).not.toMatch(/keyless-?placeholder|xoxb-keyless|KEYLESSPLACEHOLD/i)
  })
})

describe('read access to the mails of one sender, of one day', () => {
  const SEARCH = 'from:ana@example.com newer_than:1d'
  let task: OpenedTask

  beforeAll(async () => {
    task = await site.gateway.control.openTask({
      purpose: 'sum up what Ana wrote today',
      authorization_details: [
        {
          type: 'keyless_access',
          operations: ['google-gmail:messages.search'],
          constraints: { params: { 'query.q': { equals: SEARCH } } },
        },
        { type: 'keyless_access', operations: ['google-gmail:messages.read'] },
      ],
    })
  })

  const at = async (path: string) => {
    const field = `Proxy-Authorization: ${basic(task.handle ?? '')}\r\n`
    const answer = await reverse(site.gateway.proxyPort, task.handle ?? '', {
      path: `/google-gmail${path}`,
      fields: field,
    })
    return codeOf(answer) ?? answer.status
  }
  const search = (q: string) => `/gmail/v1/users/me/messages?q=${encodeURIComponent(q)}`

  it('finds and reads them', async () => {
    expect(await at(search(SEARCH))).toBe(200)
    expect(await at(`${search(SEARCH)}&maxResults=10&labelIds=INBOX`)).toBe(200)
    expect(await at('/gmail/v1/users/me/messages/18f0c0ffee')).toBe(200)
  })

  it.each([
    ['every mail', '/gmail/v1/users/me/messages'],
    ['an empty search', search('')],
    ['two days', search('from:ana@example.com newer_than:2d')],
    ['another sender', search('from:bob@example.com newer_than:1d')],
    ['one more sender', search(`${SEARCH} OR from:bob@example.com`)],
    ['the search in other letters', search(SEARCH.toUpperCase())],
    ['a second search', `${search(SEARCH)}&q=in:anywhere`],
    ['a search under another spelling', `${search(SEARCH)}&Q=in:anywhere`],
    ['threads, which hold what others wrote', `/gmail/v1/users/me/threads?q=${encodeURIComponent(SEARCH)}`],
    ['a whole thread', '/gmail/v1/users/me/threads/18f0c0ffee'],
    ['what changed', '/gmail/v1/users/me/history?startHistoryId=1'],
    ['drafts', '/gmail/v1/users/me/drafts'],
  ])('and not %s', async (_what, path) => {
    const before = arrived.length
    expect(await at(path)).not.toBe(200)
    expect(arrived.length).toBe(before)
  })
})
