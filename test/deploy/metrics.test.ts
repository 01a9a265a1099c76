import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { ROOT } from '../rig/process.ts'

const read = (path: string) => readFileSync(join(ROOT, path), 'utf8')
const namesIn = (text: string, pattern: RegExp) => new Set([...text.matchAll(pattern)].map(([, name = '']) => name))

/** Whatever in the composition root makes a gauge. */
const measuring = globSync('gateway/house/*.ts', { cwd: ROOT }).map(read)
const counted = namesIn(
  [read('gateway/control/records/metrics.ts'), ...measuring.filter((text) => text.includes(' gauge('))].join('\n'),
  /'((?:keyless|process)_[a-z_]+)'/g,
)

it('explains every metric, and none that is not there', () => {
  const page = namesIn(read('docs/metrics.md'), /`((?:keyless|process)_[a-z_]+)`/g)
  expect([...page].sort()).toEqual([...counted].sort())
})

it('shows in the dashboard what the gateway counts, by labels that it has', () => {
  const dashboard = JSON.parse(read('deploy/grafana/keyless.json')) as {
    panels: { title: string; targets: { expr: string }[] }[]
  }
  const asked = dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr))
  const named = namesIn(asked.join('\n'), /(keyless_[a-z_]+?)(?:_bucket|_sum|_count)?\{/g)
  expect([...named].filter((name) => !counted.has(name))).toEqual([])
  for (const title of [
    'Median credential lifetime',
    'Mean time to revoke',
    'Issuance, 99th percentile',
    'Refusals by code',
  ])
    expect(dashboard.panels.map((panel) => panel.title)).toContain(title)
})
