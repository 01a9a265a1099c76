/** The control door over TCP and over its unix socket, as clients and attackers meet it. */

import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ControlUnreachable, controlClient } from '../../gateway/cli/control-client.ts'
import { presenting } from '../grant/grant.fixture.ts'
import { ask, logIsFull, openRig, type Rig, type RigChanges, status, triage } from './door.fixture.ts'

let rig: Rig
const reopen = async (changes: RigChanges) => {
  await rig.close()
  rig = await openRig(changes)
}
beforeEach(async () => {
  rig = await openRig()
})
afterEach(() => rig.close())

const json = { 'content-type': 'application/json' }
/** The record without ids. */
const steps = () => rig.record.map((line) => line.split(' ').slice(0, 2).join(' '))
const local = () => ({ socketPath: rig.socketPath })
const tcp = () => ({ port: rig.door.port })
const good = { purpose: 'triage issue 42', scope: 'github:issues.read' }
const post = (path: string, body: unknown, headers: Record<string, string> = json) =>
  ask(local(), { method: 'POST', path, headers, body: typeof body === 'string' ? body : JSON.stringify(body) })

describe('opening a task over the socket', () => {
  it('answers with everything an agent needs, this once, and a sentence of who authorised whom', async () => {
    const answer = await post('/tasks', { ...good, agent: triage.id, ttl_s: 60, heartbeat: true })
    expect(answer.status).toBe(201)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.json).toEqual({
      task: expect.stringMatching(/^task_[0-9a-f-]{36}$/),
      grant: expect.stringMatching(/^[0-9a-f-]{36}$/),
      agent: triage.id,
      human: 'ana',
      scope: 'github:issues.read',
      authorization_details: [{ type: 'keyless_access', operations: ['github:issues.read'] }],
      handle: expect.stringMatching(/^kh_[\w-]{43}$/),
      token: expect.stringMatching(/^eyJ/),
      expires_at: rig.clock.nowMs() / 1000 + 60,
      expires_in: 60,
      heartbeat_s: 15,
      lineage: 'ana authorised spiffe://acme.test/agents/triage for task “triage issue 42”',
    })
    expect(await rig.grants.authenticate(presenting(String(answer.json.handle)))).toMatchObject({
      id: answer.json.grant,
    })
  })

  it('takes agent, lifetime and no heartbeats as defaults', async () => {
    const opened = await rig.client.openTask(good)
    expect(opened).toMatchObject({ agent: triage.id, expires_in: 900 })
    expect(opened).not.toHaveProperty('heartbeat_s')
    expect(await rig.client.tasks()).toMatchObject([{ task: opened.task, heartbeat: false }])
  })

  it('goes through the flow, and is in the log before it takes effect', async () => {
    await rig.client.openTask(good)
    expect(rig.record).toEqual([
      expect.stringMatching(/^open task.open [0-9a-f-]{36}$/),
      'proposed task.open',
      'decided allow',
      'committed',
    ])
  })

  it('does nothing when policy says no, and says so', async () => {
    await reopen({ effect: 'deny' })
    await expect(rig.client.openTask(good)).rejects.toMatchObject({ code: 'policy_denied', detail: 'a rule says no' })
    expect(await rig.client.tasks()).toEqual([])
    expect(rig.record.at(-1)).toBe('refused policy_denied')
  })

  it('does nothing when the log cannot be written', async () => {
    await reopen({ commit: logIsFull })
    const answer = await post('/tasks', good)
    expect([answer.status, answer.json.code]).toEqual([503, 'audit_unavailable'])
    expect(await rig.client.tasks()).toEqual([])
  })

  it('says what to do when no agent is registered', async () => {
    await reopen({ agents: [] })
    await expect(rig.client.openTask(good)).rejects.toMatchObject({
      code: 'agent_unknown',
      detail: expect.stringContaining('settings'),
    })
  })

  it('names field, got and allowed for every fault at once, and repeats no value', async () => {
    const answer = await post('/tasks', {
      purpose: 7,
      scope: 'sekret'.repeat(1000),
      ttl_s: '5m',
      heartbeat: 'yes',
      sekret: 1,
    })
    expect(answer.status).toBe(400)
    expect(answer.json).toMatchObject({ code: 'instruction_invalid', remedy: 'fix_request', status: 400 })
    const detail = String(answer.json.detail)
    for (const part of [
      '"sekret": got a member that is not known, allowed are agent, purpose, plan, scope, authorization_details, ttl_s, preset, ',
      'purpose: got 7, allowed is a text of 1 to 500 characters',
      'scope: got a string of 6000 characters, allowed is operation names',
      'ttl_s: got a string of 2 characters, allowed is a whole number of seconds, 1 to 3600.',
      'heartbeat: got a string of 3 characters, allowed is true or false.',
    ]) {
      expect(detail).toContain(part)
    }
    expect(detail).not.toContain('sekretsekret')
  })

  it('refuses bodies that are missing, no JSON, no object, not sent as JSON, poisoned or too long', async () => {
    const invalid: [string, Record<string, string>][] = [
      ['', json],
      ['', {}],
      ['{', json],
      ['[]', json],
      ['null', json],
      ['"x"', json],
      [JSON.stringify(good), { 'content-type': 'text/plain' }],
      [JSON.stringify(good), { 'content-type': 'application/x-www-form-urlencoded' }],
      ['{"__proto__": {"agent": "x"}, "purpose": "a", "scope": "github:x"}', json],
      [JSON.stringify({ ...good, purpose: 'x'.repeat(70_000) }), json],
    ]
    for (const [body, headers] of invalid) {
      const answer = await post('/tasks', body, headers)
      expect([answer.status, answer.json.code], body.slice(0, 60)).toEqual([400, 'instruction_invalid'])
      expect(answer.headers['content-type']).toContain('application/problem+json')
    }
    // Each is in the record as refused, and nothing else has happened.
    expect(steps()).toEqual(invalid.flatMap(() => ['open unread', 'refused instruction_invalid']))
  })

  it('answers every refusal as a problem with the id of the event', async () => {
    const answer = await post('/tasks', { ...good, scope: 'gitlab:x' })
    const [, , id] = (rig.record[0] ?? '').split(' ')
    expect(answer.json).toEqual({
      type: 'urn:keyless:error:invalid_scope',
      title: 'The scope asked for cannot be granted',
      status: 400,
      detail: expect.stringContaining('gitlab:x'),
      code: 'invalid_scope',
      remedy: 'fix_request',
      instance: id,
    })
    expect(answer.headers['keyless-error']).toBe('invalid_scope')
  })

  it('never takes the id of an event from the caller', async () => {
    await post('/tasks', good, { ...json, 'request-id': 'mine', 'x-request-id': 'mine' })
    expect(rig.record[0]).not.toContain('mine')
  })

  it('hides an unexpected error from the caller and shows it to the house', async () => {
    await reopen({ status: async () => Promise.reject(new Error('/home/ana/.keyless is gone')) })
    const answer = await ask(local(), { path: '/status' })
    expect([answer.status, answer.json.code]).toEqual([500, 'internal'])
    expect(answer.text).not.toContain('/home/ana')
    expect(rig.reported).toEqual([expect.objectContaining({ message: '/home/ana/.keyless is gone' })])
  })
})

describe('a task over the socket', () => {
  it('is kept alive, listed without its handle, and ended once', async () => {
    const opened = await rig.client.openTask({ ...good, heartbeat: true })
    const { expires_at, grant } = opened
    expect(await rig.client.heartbeat(opened.task)).toEqual({ expires_at, grant, state: 'active' })
    const listed = await ask(local(), { path: '/tasks' })
    expect(listed.json.tasks).toEqual([
      {
        task: opened.task,
        grant: opened.grant,
        agent: triage.id,
        human: 'ana',
        purpose: 'triage issue 42',
        scope: 'github:issues.read',
        state: 'active',
        preset: 'per-task',
        created_at: rig.clock.nowMs() / 1000,
        issued_at: rig.clock.nowMs() / 1000,
        expires_at: opened.expires_at,
        heartbeat: true,
      },
    ])
    expect(listed.text).not.toMatch(/kh_|eyJ/)
    await rig.client.completeTask(opened.task)
    expect(rig.ended.map(({ id }) => id)).toEqual([opened.grant])
    expect(await rig.client.tasks()).toEqual([])
    await expect(async () => rig.grants.authenticate(presenting(opened.handle))).rejects.toMatchObject({
      code: 'grant_revoked',
    })
    await expect(rig.client.completeTask(opened.task)).rejects.toMatchObject({ code: 'task_unknown' })
    await expect(rig.client.heartbeat(opened.task)).rejects.toMatchObject({ code: 'task_unknown' })
  })

  it('takes a heartbeat without a body', async () => {
    const { task } = await rig.client.openTask({ ...good, heartbeat: true })
    expect((await ask(local(), { method: 'POST', path: `/tasks/${task}/heartbeat` })).status).toBe(200)
  })

  it('is ended only for a reason that is known', async () => {
    const { task } = await rig.client.openTask(good)
    for (const body of [{}, { reason: 'heartbeat_missed' }, { reason: 'because' }, { reason: 'completed', extra: 1 }]) {
      expect((await post(`/tasks/${task}/complete`, body)).json.code, JSON.stringify(body)).toBe('instruction_invalid')
    }
    expect(await rig.client.tasks()).toHaveLength(1)
  })

  it('is refused under a name that is no task id, before anything is asked', async () => {
    for (const id of ['x', 'task_', `task_${'0'.repeat(36)}x`, '..%2f..%2fetc', "task_' OR 1=1"]) {
      const answer = await post(`/tasks/${encodeURIComponent(id)}/complete`, { reason: 'completed' })
      expect(answer.json.code, id).toBe('instruction_invalid')
    }
    expect(new Set(steps())).toEqual(new Set(['open unread', 'refused instruction_invalid']))
  })
})

describe('the TCP listener', () => {
  it('serves health, keys, CA and description, and nothing that needs the human', async () => {
    expect((await ask(tcp(), { path: '/health/live' })).json).toEqual({ live: true })
    expect((await ask(tcp(), { path: '/health/ready' })).json).toEqual({
      ready: true,
      checks: { audit: true, redis: true },
    })
    expect((await ask(tcp(), { path: '/.well-known/jwks.json' })).json).toEqual(await rig.grants.jwks())
    const ca = await ask(tcp(), { path: '/ca.pem' })
    expect([ca.text, ca.headers['content-type']]).toEqual([status.ca_pem, 'application/x-pem-file'])
    const paths = async (where: { port: number } | { socketPath: string }) =>
      Object.keys((await ask(where, { path: '/openapi.json' })).json.paths as object)
    const open = await paths(tcp())
    expect(open).toEqual(expect.arrayContaining(['/health/live', '/health/ready', '/.well-known/jwks.json', '/ca.pem']))
    expect(open.filter((path) => path === '/tasks' || path.startsWith('/grants') || path === '/status')).toEqual([])
    expect(await paths(local())).toEqual(
      expect.arrayContaining(['/tasks', '/tasks/{id}/heartbeat', '/tasks/{id}/complete', '/status', '/ca.pem']),
    )
  })

  it('knows no tasks and no status, whatever the method', async () => {
    const { task } = await rig.client.openTask(good)
    for (const [method, path] of [
      ['GET', '/tasks'],
      ['POST', '/tasks'],
      ['GET', '/status'],
      ['GET', `/tasks/${task}`],
      ['POST', '/grants/delegate'],
      ['POST', '/grants/revoke'],
      ['GET', '//tasks'],
      ['GET', '/tasks/'],
      ['GET', '/TASKS'],
      ['GET', '/%74asks'],
    ] as const) {
      const answer = await ask(tcp(), {
        method,
        path,
        headers: json,
        ...(method === 'POST' && { body: '{"reason":"completed"}' }),
      })
      expect([answer.status, answer.json.code], path).toEqual([404, 'route_unknown'])
    }
    expect(await rig.client.tasks()).toHaveLength(1)
  })

  it('says 503 while it is not ready', async () => {
    await reopen({ ready: async () => ({ ready: false, checks: { audit: false } }) })
    const answer = await ask(tcp(), { path: '/health/ready' })
    expect([answer.status, answer.json]).toEqual([503, { ready: false, checks: { audit: false } }])
  })

  it('answers under its own names only, so that no web page reaches it by rebinding a name', async () => {
    await reopen({ publicUrl: 'https://gateway.acme.test:8443/x' })
    const at = async (host: string) => (await ask(tcp(), { path: '/.well-known/jwks.json', headers: { host } })).status
    for (const host of [
      'localhost',
      `localhost:${rig.door.port}`,
      'x.localhost',
      '127.0.0.1',
      '127.0.0.1:1',
      '127.8.9.1',
      '[::1]:80',
      'LOCALHOST',
      'gateway.acme.test',
      'gateway.acme.test:8443',
    ])
      expect(await at(host), host).toBe(200)
    for (const host of [
      'evil.test',
      'localhost.evil.test',
      '127.0.0.1.nip.io',
      'acme.test',
      '10.0.0.1',
      '169.254.169.254',
      'gateway.acme.test.evil.test',
    ])
      expect(await at(host), host).toBe(421)
    for (const host of ['0x7f.1', '2130706433', 'local host', 'localhost@evil.test', 'localhost#evil'])
      expect(await at(host), host).toBeGreaterThanOrEqual(400)
  })

  it('refuses two Host fields, an empty one and none, whatever the other fields are called', async () => {
    const raw = (head: string) =>
      new Promise<string>((resolve) => {
        const socket = connect(rig.door.port, '127.0.0.1', () => socket.write(head))
        let text = ''
        socket.on('data', (chunk) => (text += chunk)).on('close', () => resolve(text))
        socket.on('error', () => resolve(text))
      })
    expect(
      await raw('GET /ca.pem HTTP/1.1\r\nhost: localhost\r\nhost: evil.test\r\nconnection: close\r\n\r\n'),
    ).toMatch(/^HTTP\/1.1 (?:400|421)/)
    expect(await raw('GET /ca.pem HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n')).toMatch(/^HTTP\/1.1 400/)
    expect(await raw('GET /ca.pem HTTP/1.1\r\nconnection: close\r\n\r\n')).toMatch(/^HTTP\/1.1 400/)
    const odd = '__proto__: a\r\n__proto__: b\r\nconstructor: c\r\n'
    expect(await raw(`GET /ca.pem HTTP/1.1\r\n${odd}host: localhost\r\nconnection: close\r\n\r\n`)).toMatch(
      /^HTTP\/1.1 200/,
    )
    expect(await raw(`GET /ca.pem HTTP/1.1\r\n${odd}host: evil.test\r\nconnection: close\r\n\r\n`)).toMatch(
      /^HTTP\/1.1 421/,
    )
  })

  it('is told apart from every other place by isControlAddress', async () => {
    const { port } = rig.door
    for (const address of ['127.0.0.1', '127.0.0.2', '::1', '::ffff:127.0.0.1', '0.0.0.0', '::'])
      expect(rig.door.isControlAddress(address, port), address).toBe(true)
    expect(rig.door.isControlAddress('127.0.0.1', port + 1)).toBe(false)
    expect(rig.door.isControlAddress('93.184.216.34', port)).toBe(false)
  })

  it('names the setting when its address is taken, and leaves no socket behind', async () => {
    const socketPath = `${rig.dir}/second.sock`
    await expect(openRig({ port: rig.door.port, socketPath })).rejects.toThrow(/listen\.control/)
    expect(existsSync(socketPath)).toBe(false)
  })
})

describe('web pages', () => {
  it('get no instruction through, over either listener', async () => {
    for (const where of [local(), tcp()]) {
      for (const headers of [
        { origin: 'https://evil.test' },
        { origin: 'null' },
        { origin: 'http://localhost' },
        { 'sec-fetch-site': 'cross-site' },
        { 'sec-fetch-site': 'same-origin' },
      ]) {
        const answer = await ask(where, {
          method: 'POST',
          path: '/tasks',
          headers: { ...json, ...headers },
          body: JSON.stringify(good),
        })
        expect([answer.status, answer.json.code]).toEqual([403, 'policy_denied'])
      }
    }
    expect(rig.record).toEqual([])
  })

  it('get no permission to read across origins', async () => {
    const answer = await ask(tcp(), { path: '/.well-known/jwks.json', headers: { origin: 'https://evil.test' } })
    expect(answer.headers).not.toHaveProperty('access-control-allow-origin')
    const preflight = await ask(tcp(), {
      method: 'OPTIONS',
      path: '/tasks',
      headers: { origin: 'https://evil.test', 'access-control-request-method': 'POST' },
    })
    expect(preflight.status).toBe(403)
  })
})

describe('draining', () => {
  it('finishes what is under way, takes nothing new, and removes the socket', async () => {
    const gate = Promise.withResolvers<void>()
    const started = Promise.withResolvers<void>()
    await reopen({
      status: async () => {
        started.resolve()
        await gate.promise
        return status
      },
    })
    const slow = rig.client.status()
    await started.promise
    const drained = rig.door.drain(5_000)
    gate.resolve()
    expect(await slow).toEqual(status)
    await drained
    expect(existsSync(rig.socketPath)).toBe(false)
    await expect(rig.client.status()).rejects.toThrow(ControlUnreachable)
    await expect(ask(tcp(), { path: '/health/live' })).rejects.toMatchObject({ code: 'ECONNREFUSED' })
  })

  it('cuts what does not finish within the grace', async () => {
    const started = Promise.withResolvers<void>()
    await reopen({
      status() {
        started.resolve()
        return new Promise(() => {})
      },
    })
    const hung = rig.client.status().then(
      () => 'answered',
      () => 'cut',
    )
    await started.promise
    await rig.door.drain(50)
    expect(await hung).toBe('cut')
  })
})

describe('the client', () => {
  it('says how to start a gateway when there is none', async () => {
    await expect(controlClient('/nowhere/control.sock').tasks()).rejects.toThrow(
      /No gateway is running: nothing answers at \/nowhere\/control\.sock\. Start one with `keyless start`/,
    )
  })

  it('shows the gateway’s own view of itself', async () => {
    expect(await rig.client.status()).toEqual(status)
  })
})
