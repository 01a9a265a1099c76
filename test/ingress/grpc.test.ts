/** Refusals in the words of gRPC: a status for every code, a sentence that survives the wire, and no retry where none helps. */
import * as grpc from '@grpc/grpc-js'
import { assert, property, string } from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { ProblemBody } from '../../gateway/ingress/dialect.ts'
import { grpcTypeOf, renderGrpc } from '../../gateway/ingress/grpc.ts'
import { type ProblemCode, problems } from '../../gateway/protocol/problem.ts'
import { basic, HANDLE, type OpenDoor, openDoor } from './door.fixture.ts'
import { call, openSession } from './http2.fixture.ts'
import { openWire } from './wire.fixture.ts'

let door: OpenDoor
beforeAll(async () => {
  door = await openDoor()
})
afterAll(() => door.close())

function problem(code: ProblemCode, detail = 'Why.'): ProblemBody {
  const { status, title, remedy } = problems[code]
  // Inside a tunnel identity is a 403.
  return { type: '', title, status: status === 407 ? 403 : status, detail, code, remedy, instance: 'id' }
}

function rendered(code: ProblemCode, detail?: string): Map<string, string> {
  const { headers = [] } = renderGrpc(problem(code, detail), 'application/grpc')
  return new Map(headers.flatMap((name, i) => (i % 2 === 0 ? [[name, headers[i + 1] as string]] : [])))
}

test.each<[ProblemCode, keyof typeof grpc.status]>([
  ['grant_missing', 'UNAUTHENTICATED'],
  ['grant_expired', 'UNAUTHENTICATED'],
  ['grant_revoked', 'UNAUTHENTICATED'],
  ['policy_denied', 'PERMISSION_DENIED'],
  ['scope_exceeded', 'PERMISSION_DENIED'],
  ['address_forbidden', 'PERMISSION_DENIED'],
  ['limit_exceeded', 'RESOURCE_EXHAUSTED'],
  ['use_spent', 'RESOURCE_EXHAUSTED'],
  ['request_malformed', 'INVALID_ARGUMENT'],
  ['target_mismatch', 'INVALID_ARGUMENT'],
  ['method_refused', 'UNIMPLEMENTED'],
  ['route_unknown', 'UNIMPLEMENTED'],
  ['upstream_timeout', 'DEADLINE_EXCEEDED'],
  ['upstream_refused', 'UNAVAILABLE'],
  ['too_many_requests', 'UNAVAILABLE'],
  ['draining', 'UNAVAILABLE'],
  ['upstream_tls', 'INTERNAL'],
  ['credential_rejected', 'INTERNAL'],
  ['internal', 'INTERNAL'],
])('%s is %s', (code, status) => {
  expect(rendered(code).get('grpc-status')).toBe(String(grpc.status[status]))
})

test('no refusal is OK, and only those that retrying helps may be tried again', () => {
  for (const code of Object.keys(problems) as ProblemCode[]) {
    const fields = rendered(code)
    expect(Number(fields.get('grpc-status'))).toBeGreaterThan(0)
    expect(fields.has('grpc-retry-pushback-ms')).toBe(problems[code].remedy !== 'retry')
    if (problems[code].remedy !== 'retry') expect(fields.get('grpc-status')).not.toBe(String(grpc.status.UNAVAILABLE))
  }
})

test('whatever a sentence holds, a field can carry it and the client reads it', () => {
  assert(
    property(string({ unit: 'binary' }), (detail) => {
      const message = rendered('policy_denied', detail).get('grpc-message') ?? ''
      expect(message).toMatch(/^[\x20-\x7e]*$/)
      expect(decodeURIComponent(message)).toContain(detail.toWellFormed())
    }),
  )
})

test.each([
  ['application/grpc', 'application/grpc'],
  ['application/grpc+proto', 'application/grpc'],
  ['application/grpc; charset=utf-8', 'application/grpc'],
  ['Application/GRPC-Web+proto', 'application/grpc-web'],
  ['application/grpc-web-text', 'application/grpc-web-text'],
  ['application/grpcish', undefined],
  ['application/json', undefined],
  ['text/plain application/grpc', undefined],
  [undefined, undefined],
])('%s is answered as %s', (asked, answered) => {
  expect(grpcTypeOf(asked)).toBe(answered)
})

describe('on the wire', () => {
  const fields = { ':method': 'POST', ':path': '/denied.Service/Method', te: 'trailers' }

  test('a refusal is one frame: 200, the status, and its end', async () => {
    const session = await openSession(door)
    const answer = await call(session, { ...fields, 'content-type': 'application/grpc' }, 'x'.repeat(100_000))
    expect(answer).toMatchObject({ status: 200, isTrailersOnly: true, body: '', rstCode: 0 })
    expect(answer.headers).toMatchObject({
      'content-type': 'application/grpc',
      'grpc-status': '7',
      'grpc-retry-pushback-ms': '-1',
      'keyless-error': 'policy_denied',
      'proxy-status': 'keyless; error=http_request_denied; details="policy_denied"',
    })
    expect(answer.headers['content-length']).toBe(undefined)
    session.close()
  })

  test('gRPC-Web over HTTP/1.1 gets it in the head', async () => {
    const wire = await openWire(door.port)
    const head = `Host: api.github.test\r\nProxy-Authorization: ${basic('t', HANDLE)}\r\nContent-Type: application/grpc-web+proto\r\nContent-Length: 0\r\n\r\n`
    wire.write(`POST http://api.github.test/denied HTTP/1.1\r\n${head}`)
    const answer = await wire.answer()
    expect(answer).toMatchObject({ status: 200, body: '' })
    expect(answer.headers.get('grpc-status')).toBe('7')
    expect(answer.headers.get('content-type')).toBe('application/grpc-web')
    wire.destroy()
  })

  test('a missing grant stays a 407 to the proxy client, whatever it sends', async () => {
    const wire = await openWire(door.port)
    wire.write(
      'POST http://api.github.test/ HTTP/1.1\r\nHost: api.github.test\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n',
    )
    expect((await wire.answer()).status).toBe(407)
    wire.destroy()
  })
})
