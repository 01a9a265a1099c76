import fc from 'fast-check'
import { expect, test } from 'vitest'
import { renderProblem } from '../../gateway/ingress/dialect.ts'
import { writeRefusal } from '../../gateway/ingress/refusal.ts'
import type { Inbound, Mode } from '../../gateway/protocol/message.ts'
import { GatewayError, type ProblemCode, problems } from '../../gateway/protocol/problem.ts'
import { DIALECTS, type Dialect, type Endpoint } from '../../gateway/protocol/service.ts'

interface Written {
  status: number
  reason: string | undefined
  headers: Map<string, string>
  text: string
  isDestroyed: boolean
}

const codes = Object.keys(problems) as ProblemCode[]
/** Those whose body is not JSON. */
const TEXT: readonly Dialect[] = ['git', 'aws-xml', 'aws-query']

function write(
  code: ProblemCode,
  options: {
    mode?: Mode
    dialect?: Dialect
    method?: string
    userAgent?: string
    rawHeaders?: readonly string[]
    detail?: string
    retryAfterMs?: number
    state?: object
  } = {},
): Written {
  const written: Written = { status: 0, reason: undefined, headers: new Map(), text: '', isDestroyed: false }
  const reply = {
    headersSent: false,
    writableEnded: false,
    destroyed: false,
    writeHead(status: number, ...rest: [string, string[]] | [string[]]) {
      const list = rest.at(-1) as string[]
      written.status = status
      written.reason = rest.length === 2 ? (rest[0] as string) : undefined
      for (let i = 0; i < list.length; i += 2)
        written.headers.set((list[i] as string).toLowerCase(), list[i + 1] as string)
    },
    end(text: string) {
      written.text = text
    },
    destroy() {
      written.isDestroyed = true
    },
    ...options.state,
  }
  const client = { address: '127.0.0.1', userAgent: options.userAgent }
  const inbound = {
    id: 'event-1',
    mode: options.mode ?? 'forward',
    method: options.method ?? 'GET',
    rawHeaders: options.rawHeaders ?? [],
    client,
    body: null,
    reply,
  } as unknown as Inbound
  const endpoint = options.dialect && ({ service: { dialect: options.dialect } } as Endpoint)
  const refusal = new GatewayError(code, options.detail ?? 'Because.')
  if (options.retryAfterMs !== undefined) refusal.retryAfterMs = options.retryAfterMs
  writeRefusal(inbound, refusal, endpoint)
  return written
}

test.each([
  ['forward', 407, 'proxy-authenticate', 'Basic realm="keyless"'],
  ['reverse', 401, 'www-authenticate', 'Basic realm="keyless", Bearer'],
  ['intercept', 403, undefined, undefined],
] as const)('a missing grant in %s mode is a %i', (mode, status, name, challenge) => {
  const { status: said, headers, text } = write('grant_missing', { mode })
  expect(said).toBe(status)
  expect(JSON.parse(text).status).toBe(status)
  for (const candidate of ['proxy-authenticate', 'www-authenticate'])
    expect(headers.get(candidate)).toBe(candidate === name ? challenge : undefined)
})

test('every code, mode and dialect carries its code, Proxy-Status and remedy, and never 401 or 407 inside a tunnel', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...codes),
      fc.constantFrom('forward', 'reverse', 'intercept'),
      fc.constantFrom(...DIALECTS),
      (code, mode, dialect) => {
        const { status, headers, text } = write(code, { mode: mode as Mode, dialect })
        expect(headers.get('keyless-error')).toBe(code)
        expect(headers.get('proxy-status')).toBe(`keyless; error=${problems[code].proxyError}; details="${code}"`)
        expect(headers.get('x-should-retry')).toBe(problems[code].remedy === 'retry' ? undefined : 'false')
        expect(headers.get('cache-control')).toBe('no-store')
        expect(headers.get('content-length')).toBe(String(Buffer.byteLength(text)))
        expect(text).toContain(code)
        expect(text).toContain('event-1')
        if (mode === 'intercept') expect([401, 407]).not.toContain(status)
      },
    ),
  )
})

test('what is worth trying again says after how many seconds, where that is known', () => {
  expect(write('credential_unavailable', { retryAfterMs: 1_001 }).headers.get('retry-after')).toBe('2')
  expect(write('credential_unavailable').headers.get('retry-after')).toBeUndefined()
  expect(write('credential_rejected', { retryAfterMs: 1_001 }).headers.get('retry-after')).toBeUndefined() // no time heals that
})

test('any detail survives as itself in every JSON dialect, and never reaches a header', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'binary' }),
      fc.constantFrom(...DIALECTS.filter((dialect) => !TEXT.includes(dialect))),
      (detail, dialect) => {
        const { headers, text } = write('policy_denied', { dialect, detail })
        expect(JSON.stringify(JSON.parse(text))).toContain(JSON.stringify(detail).slice(1, -1))
        for (const value of headers.values()) expect(value).toMatch(/^[\x20-\x7e]*$/)
      },
    ),
  )
})

const problem = {
  type: 'urn:keyless:error:policy_denied',
  title: 'T',
  status: 403,
  detail: 'D',
  code: 'policy_denied',
  remedy: 'ask_grantor',
  instance: 'I',
} as const
const SENTENCE = 'T: D (keyless policy_denied, I)'

test.each([
  ['problem', problem],
  [
    'openai',
    {
      error: {
        message: SENTENCE,
        type: 'permission_error',
        code: 'policy_denied',
        param: null,
        remedy: 'ask_grantor',
        instance: 'I',
      },
    },
  ],
  ['anthropic', { type: 'error', error: { type: 'permission_error', message: SENTENCE, code: 'policy_denied' } }],
  ['github', { message: SENTENCE, documentation_url: problem.type, code: 'policy_denied' }],
  ['stripe', { error: { message: SENTENCE, type: 'invalid_request_error', code: 'policy_denied' } }],
  ['slack', { ok: false, error: 'policy_denied', response_metadata: { messages: [`[ERROR] ${SENTENCE}`] } }],
  [
    'google',
    {
      error: {
        code: 403,
        message: SENTENCE,
        status: 'PERMISSION_DENIED',
        details: [{ reason: 'POLICY_DENIED', domain: 'keyless', metadata: { remedy: 'ask_grantor', instance: 'I' } }],
      },
    },
  ],
  ['npm', { error: SENTENCE, code: 'policy_denied' }],
  [
    'kubernetes',
    { kind: 'Status', apiVersion: 'v1', status: 'Failure', message: SENTENCE, reason: 'Forbidden', code: 403 },
  ],
  ['docker', { errors: [{ code: 'DENIED', message: SENTENCE, detail: problem }] }],
  ['aws-json', { __type: 'AccessDeniedException', message: SENTENCE, keyless: problem }],
  ['mcp', { jsonrpc: '2.0', id: null, error: { code: -32001, message: SENTENCE, data: problem } }],
] as const)('the %s dialect has the shape its clients display', (dialect, shape) => {
  expect(JSON.parse(renderProblem(problem, dialect).text)).toMatchObject(shape)
})

test('XML has the shape of each of the two AWS protocols, whatever the detail', () => {
  const said = { ...problem, detail: '<a>&"\0\ud800\'' }
  const error =
    '<Error><Type>Sender</Type><Code>AccessDenied</Code><Message>T: &#60;a&#62;&#38;&#34;\ufffd\ufffd&#39; (keyless policy_denied, I)</Message><RequestId>I</RequestId></Error>'
  const start = '<?xml version="1.0" encoding="UTF-8"?>\n'
  expect(renderProblem(said, 'aws-xml')).toEqual({
    status: 403,
    contentType: 'application/xml',
    text: `${start}${error}`,
  })
  expect(renderProblem(said, 'aws-query').text).toBe(
    `${start}<ErrorResponse>${error}<RequestId>I</RequestId></ErrorResponse>`,
  )
})

test.each([
  ['OpenAI/Python 3.54.0', [], 'openai'],
  ['AsyncAnthropic/Python 2.12.0', [], 'anthropic'],
  ['claude-cli/2.1.197 (external, cli)', [], 'anthropic'],
  ['google-api-nodejs-client/9.15.1', [], 'google'],
  ['google-genai-sdk/1.2 gl-python/3.11', [], 'google'],
  ['GitHub CLI 2.23.0', [], 'github'],
  ['octokit-core.js/7.0.0 Node.js/26', [], 'github'],
  ['npm/11.6.0 node/v26.10.0 linux x64', [], 'npm'],
  ['kubectl/v1.32.4 (linux/amd64) kubernetes/59526cd', [], 'kubernetes'],
  ['docker/28.0.0 go/go1.24 UpstreamClient(Docker-Client/28.0.0 (linux))', [], 'docker'],
  ['skopeo/1.9.3', [], 'docker'],
  ['Boto3/1.44.5 md/Botocore#1.44.5', ['Content-Type', 'application/x-amz-json-1.0'], 'aws-json'],
  ['Boto3/1.44.5 md/Botocore#1.44.5', ['Content-Type', 'application/x-www-form-urlencoded'], 'aws-query'],
  ['aws-sdk-js/3.1169.0', [], 'aws-xml'],
  ['python-httpx2/2.16.2', ['Accept', 'application/json, text/event-stream'], 'mcp'],
  ['node', ['MCP-Protocol-Version', '2025-06-18'], 'mcp'],
  ['curl/7.88.1', ['Accept', '*/*'], 'problem'],
] as const)('%s is answered in its own words where the service has none: %s %s', (userAgent, rawHeaders, dialect) => {
  const { headers, text } = write('policy_denied', { mode: 'intercept', userAgent, rawHeaders })
  const stated = { ...problem, title: problems.policy_denied.title, detail: 'Because.', instance: 'event-1' }
  expect(text).toBe(renderProblem(stated, dialect).text)
  // What the service says comes first.
  expect(write('policy_denied', { mode: 'intercept', userAgent, rawHeaders, dialect: 'stripe' }).text).toBe(
    renderProblem(stated, 'stripe').text,
  )
  expect(headers.get('content-type')).toBe(renderProblem(stated, dialect).contentType)
})

test('git-lfs gets the shape of its own API, whatever the service', () => {
  const { text } = write('policy_denied', {
    dialect: 'git',
    userAgent: 'git-lfs/3.3.0 (GitHub; linux amd64; go 1.19.8)',
  })
  expect(JSON.parse(text).message).toBe('Policy does not allow this call: Because. (keyless policy_denied, event-1)')
})

test('Slack clients get a 200, except for challenges and our own failures', () => {
  expect(write('policy_denied', { dialect: 'slack', mode: 'intercept' }).status).toBe(200)
  expect(write('grant_missing', { dialect: 'slack', mode: 'intercept' }).status).toBe(200)
  expect(write('grant_missing', { dialect: 'slack', mode: 'reverse' }).status).toBe(401)
  expect(write('audit_unavailable', { dialect: 'slack', mode: 'intercept' }).status).toBe(503)
})

test('git gets one line of plain text, whatever the service', () => {
  const { headers, text } = write('policy_denied', { dialect: 'github', userAgent: 'git/2.39.5' })
  expect(headers.get('content-type')).toBe('text/plain; charset=utf-8')
  expect(text).toBe('Policy does not allow this call: Because. (keyless policy_denied, event-1)\n')
})

test('the reason phrase of a refused CONNECT names the code, and nothing the agent sent', () => {
  expect(write('grant_expired', { method: 'CONNECT', detail: 'x\r\ny' }).reason).toBe(
    'The grant has expired (keyless grant_expired)',
  )
})

test('an answer that has begun is cut, one that is complete is left alone', () => {
  expect(write('upstream_broken', { state: { headersSent: true } })).toMatchObject({ isDestroyed: true, status: 0 })
  expect(write('upstream_broken', { state: { headersSent: true, writableEnded: true } })).toMatchObject({
    isDestroyed: false,
    status: 0,
  })
  expect(write('upstream_broken', { state: { destroyed: true } })).toMatchObject({ isDestroyed: false, status: 0 })
})
