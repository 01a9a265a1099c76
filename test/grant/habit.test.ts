/** What is remembered of an agent's habits is bounded, however many names of hosts it makes up, and what it does is told all the same. */
import { expect, it } from 'vitest'
import { type Anomaly, Habits } from '../../gateway/grant/life/habit.ts'
import { manualClock } from '../rig/clock.ts'
import { billing, triage } from './grant.fixture.ts'
import { grantBelow } from './tree.fixture.ts'

function watched() {
  const clock = manualClock()
  const names = new Set<string>()
  const told: Anomaly[] = []
  const store = {
    once: async (_: string, name: string) => !names.has(name) && names.add(name) !== undefined,
    add: async () => undefined,
    left: async () => 1, // nobody is learning
  }
  const limits = { newOperations: { count: 5, withinS: 600, learningS: 0 } }
  const habits = new Habits({ limits, store, clock, tell: (_, anomaly) => told.push(anomaly) })
  const grant = grantBelow(undefined, clock)
  const call = async (count: number, prefix: string, by = grant) => {
    for (let n = 0; n < count; n += 1) habits.called(by, `unmanaged:get ${prefix}${n}.test`)
    await new Promise(setImmediate)
  }
  return { clock, names, told, call, grant }
}

it('asks the store about a bounded number of made-up names in an hour, and tells of them', async () => {
  const { clock, names, told, call, grant } = watched()
  await call(5_000, 'a')
  expect(told).toMatchObject([{ rule: 'new_operations' }])
  expect(names.size).toBeLessThan(300)
  const before = names.size
  await call(10, 'x', {
    ...grant,
    agent: { ...grant.agent, id: grant.agent.id === triage.id ? billing.id : triage.id },
  })
  expect(names.size, 'another agent').toBeGreaterThan(before)
  clock.advance(3_600_000)
  const then = names.size
  await call(10, 'b')
  expect(names.size, 'an hour later').toBe(then + 10)
  expect(told).toHaveLength(3)
})
