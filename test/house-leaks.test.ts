/** Reports of leaked credentials while somebody who has to be asked is away: what cannot be told is to be reported again, never "unknown". */
import { randomBytes } from 'node:crypto'
import { beforeEach, expect, it } from 'vitest'
import { createLeakDesk, type DeskParts } from '../gateway/house/leaks-desk.ts'
import { GatewayError } from '../gateway/protocol/problem.ts'
import type { Secret } from '../gateway/protocol/secret.ts'
import type { Settings } from '../gateway/settings.ts'

const settings = {
  tenant: 'default',
  credentials: {},
  leaks: { canaries: {}, ends: 'grant', standingKeys: 'alert' },
} as unknown as Settings
const GRANT = { id: 'g', tenant: 'default', task: { id: 't' }, agent: { id: 'triage' } }
const LENT = {
  credentialId: 'id of lent',
  claim: { name: 'billing', grant: GRANT },
  credential: { ephemeral: true },
}

let away: 'tasks' | 'task' | 'cache' | 'index' | undefined
let facts: Record<string, unknown>[]
let done: string[]

function asked<T>(what: typeof away, answer: T): Promise<T> {
  return what === away ? Promise.reject(new GatewayError('store_unavailable', 'Not now.')) : Promise.resolve(answer)
}

const parts = {
  audit: {
    record: async (_kind: string, _tenant: string, said: Record<string, unknown>) => void facts.push(said),
    recordUnder: async (_kind: string, _grant: object, said: Record<string, unknown>) => void facts.push(said),
    late: () => undefined,
  },
  grants: {
    named: async () => {
      throw new GatewayError('grant_invalid', 'No such grant.')
    },
    list: () => asked('tasks', [{ id: 't' }]),
    task: () => asked('task', { grants: [GRANT] }),
  },
  leases: {
    credentialId: (secret: Secret) => `id of ${secret.reveal()}`,
    // What this replica holds is known to it by itself.
    known: (ids: ReadonlySet<string>, grants: readonly object[]) =>
      grants.length === 0
        ? Promise.resolve(ids.has(LENT.credentialId) ? [LENT] : [])
        : asked('cache', ids.has(LENT.credentialId) ? [LENT] : []),
    stray: async () => void done.push('stray'),
  },
  revocations: { order: async () => void done.push('order') },
  breakGlass: undefined,
  records: { find: () => asked('index', { records: [] }) },
} as unknown as DeskParts

beforeEach(() => {
  away = undefined
  facts = []
  done = []
})

const report = (token: string, source?: string) =>
  createLeakDesk(settings, parts)([{ token, ...(source !== undefined && { source }) }], 'scanner')

it('says that it knows nothing of a credential only when everybody could be asked', async () => {
  expect(await report('foreign')).toEqual([{ kind: 'unknown', outcome: 'unknown' }])
  for (away of ['tasks', 'task', 'cache', 'index'] as const)
    await expect(report('foreign'), away).rejects.toMatchObject({ code: 'store_unavailable' })
})

it('ends what this replica has lent itself, whoever else is away', async () => {
  for (away of ['tasks', 'task', 'cache', 'index'] as const) {
    done = []
    await report('lent').catch(() => undefined)
    expect(done, away).toEqual(['stray', 'order'])
  }
})

it('repeats no part of another credential that a report holds, wherever its text is cut', async () => {
  const handle = `kh_${randomBytes(32).toString('base64url')}`
  for (const before of [0, 150, 160, 190]) await report('foreign', `${' '.repeat(before)}${handle}`)
  expect(JSON.stringify(facts)).not.toContain(handle.slice(3, 10))
})
