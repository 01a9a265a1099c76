/** What whoever scrapes is told of the policies in force: asked then, and only then. */
import type { HousePolicy } from './policy.ts'

/** As `metrics.add` takes them. */
interface Gauge {
  readonly name: string
  readonly help: string
  readonly isCounter?: boolean
  read(): number | undefined | readonly { readonly labels: Readonly<Record<string, string>>; readonly value: number }[]
}

export function gaugesOfPolicy(of: Pick<HousePolicy, 'view' | 'refused'>): Gauge[] {
  const bundle = () => of.view.source?.bundle
  return [
    gauge('keyless_policies', 'Policies in force; 0 denies everything.', () => of.view.policies),
    gauge('keyless_policy_loaded_timestamp_seconds', 'Since when they decide.', () => of.view.loaded_at),
    gauge('keyless_policy_failing', '1 while what was offered last is not in force.', () =>
      of.view.trouble === undefined ? 0 : 1,
    ),
    {
      ...gauge('keyless_policy_refused_total', 'Bundles and settings that were not taken up.', () => of.refused),
      isCounter: true,
    },
    gauge('keyless_policy_version', 'Version of the signed bundle in force.', () => bundle()?.version),
    gauge('keyless_policy_end_timestamp_seconds', 'When the signed bundle in force ends.', () => bundle()?.not_after),
    {
      ...gauge('keyless_policy_shadow_total', 'Decisions that the candidate was compared on.', () => {
        const { shadow } = of.view
        if (shadow === undefined) return undefined
        return (['same', 'differed', 'skipped', 'unknown'] as const).map((result) => ({
          labels: { result },
          value: shadow[result],
        }))
      }),
      isCounter: true,
    },
  ]
}

function gauge(name: string, help: string, read: Gauge['read']): Gauge {
  return { name, help, read }
}
