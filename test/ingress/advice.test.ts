/** What a refused agent can act on reaches it in every dialect: as members, or in words where a client shows one sentence. */
import { expect, it } from 'vitest'
import { renderProblem } from '../../gateway/ingress/dialect.ts'
import { renderGrpc } from '../../gateway/ingress/grpc.ts'
import { DIALECTS } from '../../gateway/protocol/service.ts'

const problem = {
  type: 'urn:keyless:error:policy_denied',
  title: 'Policy does not allow this call',
  status: 403,
  detail: 'No policy allows it.',
  code: 'policy_denied',
  remedy: 'ask_grantor',
  instance: '0199aaaa-0000-7000-8000-000000000000',
  approval: { id: '0199bbbb', status_url: 'https://keyless.test/approvals/0199bbbb/status', interval: 5 },
  instead: [
    { operation: 'github:issues.read', access: 'read', request: 'GET /repos/acme/site/issues' },
    { operation: 'github:issues.comment', access: 'write', needs_approval: true },
    { ttl_s: 300 },
  ],
  how_to_ask: {
    method: 'POST',
    url: 'https://keyless.test/access-requests',
    body: { scope: 'github:issues.close', reason: '<why>' },
  },
} as const

it.each(DIALECTS)('in the dialect %s', (dialect) => {
  const text = renderProblem(problem, dialect)
    .text.replaceAll('&#34;', '"')
    .replaceAll('&#60;', '<')
    .replaceAll('\\"', '"')
  for (const said of [
    'approvals/0199bbbb/status',
    'github:issues.read',
    'GET /repos/acme/site/issues',
    'access-requests',
  ])
    expect(text).toContain(said)
  expect(text).toMatch(/Allowed instead: |"instead"/)
})

it('as members where a program reads them', () => {
  const { approval, instead, how_to_ask } = problem
  const members = { remedy: 'ask_grantor', approval, instead, how_to_ask }
  const bodyOf = (dialect: (typeof DIALECTS)[number]) => JSON.parse(renderProblem(problem, dialect).text)
  expect(bodyOf('problem')).toMatchObject(members)
  expect(bodyOf('openai').error).toMatchObject(members)
  expect(bodyOf('anthropic').error).toMatchObject({ type: 'permission_error', ...members })
  expect(bodyOf('mcp').error.data).toMatchObject(members)
  expect(bodyOf('github')).toMatchObject(members)
  expect(bodyOf('kubernetes').keyless).toMatchObject(members)
  expect(bodyOf('aws-json').keyless).toMatchObject(members)
  // AIP-193: metadata are strings.
  const [{ metadata }] = bodyOf('google').error.details
  for (const value of Object.values(metadata)) expect(typeof value).toBe('string')
  expect(JSON.parse(metadata.instead)).toEqual(instead)
})

it('in one sentence, for clients that show nothing else', () => {
  expect(renderProblem(problem, 'git').text).toBe(
    'Policy does not allow this call: No policy allows it. Ask again about it every 5 s at https://keyless.test/approvals/0199bbbb/status, then repeat the same request. Allowed instead: github:issues.read (GET /repos/acme/site/issues), github:issues.comment after approval, for at most 300 s. To ask a human for it: POST https://keyless.test/access-requests with this grant and {"scope":"github:issues.close","reason":"<why>"}. (keyless policy_denied, 0199aaaa-0000-7000-8000-000000000000)\n',
  )
  expect(renderGrpc(problem, 'application/grpc').headers?.join(' ')).toContain('github:issues.read')
})
