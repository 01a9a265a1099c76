/** Sessions of approvers live in their browser, encrypted, and no longer than their sign-in is fresh. */
import { createSecretKey, randomBytes } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { expect, it } from 'vitest'
import { createSessions, type Sessions } from '../../gateway/control/approve/approver-session.ts'
import { manualClock } from '../rig/clock.ts'

const clock = manualClock()
const key = createSecretKey(randomBytes(32))
const open = (publicUrl = 'https://keyless.test', with_ = key): Sessions<{ nonce: string }> =>
  createSessions({ publicUrl, key: with_, maxAuthAgeS: 900, clock })
const sessions = open()

function browserOf() {
  const jar = new Map<string, string>()
  const set: string[] = []
  const reply = {
    header: (_name: string, line: string) => {
      set.push(line)
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(line) ?? []
      if (value === '') jar.delete(name)
      else jar.set(name, value)
      return reply
    },
  }
  return {
    set,
    jar,
    reply: reply as unknown as FastifyReply,
    get request() {
      const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join('; ')
      return { raw: { rawHeaders: ['cookie', cookie] } } as unknown as FastifyRequest
    },
  }
}

const ana = () => ({ iss: 'https://id.test', sub: 'ana', authTime: Math.floor(clock.nowMs() / 1000) })

it('ends when the sign-in is too old, wherever the cookie is', async () => {
  const at = browserOf()
  await sessions.begin(at.reply, ana())
  expect((await sessions.of(at.request))?.human.sub).toBe('ana')
  clock.advance(899_000)
  expect(await sessions.of(at.request)).toBeDefined()
  clock.advance(2_000)
  expect(await sessions.of(at.request)).toBeUndefined()
})

it('begins as old as the sign-in is', async () => {
  const at = browserOf()
  const human = ana()
  clock.advance(600_000)
  await sessions.begin(at.reply, human)
  expect(at.set[0]).toMatch(/^__Host-keyless-approver=.*; Path=\/; HttpOnly; SameSite=Lax; Max-Age=300; Secure$/)
  clock.advance(301_000)
  expect(await sessions.of(at.request)).toBeUndefined()
})

it('says nothing to whoever reads the cookie, and is of no other gateway, key or use', async () => {
  const at = browserOf()
  await sessions.begin(at.reply, ana())
  const [[name, value]] = [...at.jar] as [[string, string]]
  expect(Buffer.from(value, 'base64url').toString('latin1')).not.toContain('ana')
  expect(await open('https://other.test').of(at.request)).toBeUndefined()
  expect(await open('https://keyless.test', createSecretKey(randomBytes(32))).of(at.request)).toBeUndefined()
  at.jar.set(name.replace('approver', 'approver-leaving'), value)
  expect(await sessions.back(at.request, at.reply)).toBeUndefined() // a session is no way back from the provider
  const left = browserOf()
  await sessions.leave(left.reply, { leaving: { nonce: 'n' }, next: '/approve' })
  left.jar.set(name, [...left.jar.values()][0] ?? '')
  expect(await sessions.of(left.request)).toBeUndefined() // and the other way round
})

it('is none for two cookies of one name, or one that was changed', async () => {
  const at = browserOf()
  await sessions.begin(at.reply, ana())
  const [[name, value]] = [...at.jar] as [[string, string]]
  const twice = { raw: { rawHeaders: ['cookie', `${name}=${value}; ${name}=${value}`] } } as unknown as FastifyRequest
  expect(await sessions.of(twice)).toBeUndefined()
  at.jar.set(name, `${value.slice(0, -4)}${value.endsWith('AAAA') ? 'BBBB' : 'AAAA'}`)
  expect(await sessions.of(at.request)).toBeUndefined()
})

it('proves forms for one session and one thing', async () => {
  const session = { id: 'a', human: ana() }
  const proof = sessions.proof(session, 'one')
  expect(sessions.isProof(proof, session, 'one')).toBe(true)
  expect(sessions.isProof(proof, session, 'other')).toBe(false)
  expect(sessions.isProof(proof, { ...session, id: 'b' }, 'one')).toBe(false)
  expect(open('https://keyless.test', createSecretKey(randomBytes(32))).isProof(proof, session, 'one')).toBe(false)
})
