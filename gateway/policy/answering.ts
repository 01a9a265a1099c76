/** Names in obligations to which the settings know nobody: calls then wait for people who are never asked, or are told to no one. Pure. */
import { ROOT_HUMAN } from '../protocol/approval.ts'
import { nearest } from '../protocol/nearest.ts'
import type { Policy } from './source/policy-file.ts'
import type { PolicyRemark } from './tools/review.ts'

/** Who answers, as far as the settings say. */
export interface Answering {
  /** Group → names of approvers. */
  readonly groups: ReadonlyMap<string, readonly string[]>
  /** Names that webhooks choose by. */
  readonly notified: ReadonlySet<string>
}

type Named = Pick<Policy, 'id' | 'file' | 'line' | 'obligations'>

/** Each name once, where it stands first. */
export function unanswered(policies: readonly Named[], { groups, notified }: Answering): PolicyRemark[] {
  const known = new Set(
    [...groups]
      .flatMap(([name, people]) => (people.length > 0 ? [`approval ${name}`] : []))
      .concat(`approval ${ROOT_HUMAN}`),
  )
  for (const name of notified) known.add(`notify ${name}`)
  return policies.flatMap((policy) => {
    const { approval, notify } = policy.obligations
    const asked = (approval?.from ?? []).map((name) => ({
      ...{
        name,
        key: `approval ${name}`,
        says: 'and approvals.groups of the settings has nobody in such a group: its calls are never approved',
      },
      fix: `name the group under approvals.groups${meant(name, groups.keys())}`,
    }))
    const told = (notify ?? []).map((name) => ({
      ...{
        name,
        key: `notify ${name}`,
        says: 'and no webhook of the settings has that name under notify: nobody is told',
      },
      fix: `write "notify: [${name}]" at a webhook${meant(name, notified)}`,
    }))
    return [...asked, ...told].flatMap(({ name, key, says, fix }) => {
      if (known.has(key)) return []
      known.add(key)
      const what = key.startsWith('notify') ? 'notify' : 'approval'
      return [{ where: `${policy.file}:${policy.line}`, says: `${policy.id} has @${what}("${name}"), ${says}`, fix }]
    })
  })
}

function meant(name: string, known: Iterable<string>): string {
  const close = nearest(name, [...known])
  return close === undefined ? '' : `, or write "${close}" in the policy`
}
