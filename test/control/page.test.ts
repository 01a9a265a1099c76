/** Pages for people, where something goes wrong behind them. */
import { afterEach, beforeEach, expect, it } from 'vitest'
import { ask, openRig, type Rig } from './door.fixture.ts'

let rig: Rig
const broken = new TypeError('a fault of ours')

beforeEach(async () => {
  const offer = () => Promise.reject(broken)
  rig = await openRig({ flow: { offer, leave: offer, callback: offer } })
})
afterEach(() => rig.close())

const page = (method: string, headers: Record<string, string> = {}, body?: string) =>
  ask({ port: rig.door.port }, { method, path: '/connect/t/ticket', headers, ...(body !== undefined && { body }) })

it('tells the operator what the page says the operator is told', async () => {
  const { status, text } = await page('GET')
  expect(status).toBe(500)
  expect(text).toContain('The operator finds it')
  expect(text).not.toContain(broken.message)
  expect(rig.reported).toEqual([broken])
})

it.each([
  ['too long', { 'content-type': 'application/x-www-form-urlencoded' }, `proof=${'x'.repeat(5_000)}`],
  ['of another kind', { 'content-type': 'application/json' }, '{}'],
])('says of a form that is %s what is wrong with it, and calls it no fault of ours', async (_, headers, body) => {
  const { status, text } = await page('POST', headers, body)
  expect(status).toBe(400)
  expect(text).toContain('Forms are those of our own pages')
  expect(rig.reported).toEqual([])
})

it('comes back from signing in to a page of ours, whatever place a request line names', async () => {
  const left: string[] = []
  const unasked = () => Promise.reject(broken)
  await rig.close()
  rig = await openRig({
    approvers: {
      approvals: {} as never,
      access: {} as never,
      decider: () => ({ human: { iss: '', sub: '' }, via: '' }),
      tokens: new Map(),
      pages: {
        sessions: {
          of: async () => undefined,
          leave: async (_: unknown, { next }: { next: string }) => void left.push(next),
        } as never,
        signIn: { leave: async () => ({ url: 'https://id.acme.test/', leaving: {} }), arrive: unasked },
        recordSignIn: unasked,
      },
    },
  })
  for (const path of ['/approve/0199?x=y', 'http://elsewhere.test/approve/0199', 'http://elsewhere.test/approve'])
    expect((await ask({ port: rig.door.port }, { path })).status, path).toBe(303)
  expect(left).toEqual(['/approve/0199', '/approve', '/approve'])
})
