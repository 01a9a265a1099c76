/** Permissions of GitHub Apps: names as the REST API spells them, each with a level. Pure. */

/** Rising. */
export const GITHUB_LEVELS = ['read', 'write', 'admin'] as const

export type GithubLevel = (typeof GITHUB_LEVELS)[number]

export type GithubPermissions = Readonly<Record<string, GithubLevel>>

/** The higher level of each. */
export function union(...all: readonly GithubPermissions[]): GithubPermissions {
  const united: Record<string, GithubLevel> = {}
  for (const permissions of all)
    for (const [name, level] of Object.entries(permissions)) if (!isWithin(level, united[name])) united[name] = level
  return united
}

/** Whether `level` allows no more than `bound`. No bound: nothing is allowed. */
export function isWithin(level: string, bound: GithubLevel | undefined): boolean {
  const at = (GITHUB_LEVELS as readonly string[]).indexOf(level)
  return at !== -1 && bound !== undefined && at <= GITHUB_LEVELS.indexOf(bound)
}

/** Only what the bound has too, at the lower of the two levels. */
export function intersection(permissions: GithubPermissions, bound: GithubPermissions): GithubPermissions {
  return Object.fromEntries(
    Object.entries(permissions).flatMap(([name, level]) => {
      const most = bound[name]
      if (most === undefined) return []
      return [[name, isWithin(level, most) ? level : most]]
    }),
  )
}
