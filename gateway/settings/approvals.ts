/** Approvals in the settings: who may consent, in which groups, how long a call is held, and how often agents may ask. */
import { z } from 'zod'
import { ROOT_HUMAN } from '../protocol/approval.ts'
import { nearest } from '../protocol/nearest.ts'
import { type ChannelSettings, channelMembers, channelsOf } from './approvers.ts'
import type { Surroundings } from './around.ts'

/** Many clients give up after a minute without an answer. */
const MAX_HOLD_S = 55
/** What was approved an hour ago is not what somebody has in mind now; no grant lives longer either. */
const MAX_LIFE_S = 3600

const name = () =>
  z
    .string()
    .max(64)
    .regex(/^[a-z0-9][a-z0-9._@-]*$/)

const identity = z.strictObject({
  iss: z.string().min(1).max(512).describe('Issuer that vouches for the human, as in its ID tokens.'),
  sub: z.string().min(1).max(255).describe('Name of the human at that issuer.'),
})

const approver = z
  .strictObject({
    name: name().describe('One person has one name, however many ways to prove to be it.'),
    iss: identity.shape.iss.optional(),
    sub: identity.shape.sub.optional(),
    local: z
      .string()
      .min(1)
      .max(255)
      .optional()
      .describe(
        'User that the gateway runs as, when this person is whoever works there: they decide with `keyless approvals`.',
      ),
    also: z.array(identity).max(16).optional().describe('Further identities of the same person.'),
  })
  .describe('Somebody who may consent, by issuer and name there, or by user name on this machine.')

export const approvalsSchema = z
  .strictObject({
    hold_s: z
      .int()
      .min(0)
      .max(MAX_HOLD_S)
      .optional()
      .describe(
        `Seconds that a call waits for somebody to decide before it is answered with approval_required, 0 to ${MAX_HOLD_S}. Default 25.`,
      ),
    expires_s: z
      .int()
      .min(10)
      .max(MAX_LIFE_S)
      .optional()
      .describe(
        'Seconds for which somebody can decide; then the agent is told that nobody did. Also for which what was approved can be taken up, and a no counts. Default 300.',
      ),
    max_pending: z
      .int()
      .min(1)
      .max(1000)
      .optional()
      .describe(
        'Approvals of one agent, or of one task, that wait at once; it is refused more, so that nobody drowns in them. Default 20.',
      ),
    max_per_hour: z
      .int()
      .min(1)
      .max(100_000)
      .optional()
      .describe(
        'Approvals that one agent, or one task, may ask for in an hour; requests for access are counted apart. Default 120. The same request again asks nobody anew.',
      ),
    approvers: z
      .array(approver)
      .max(1000)
      .optional()
      .describe('Who may consent. Default: the human of the task alone.'),
    groups: z
      .record(z.string().regex(/^[a-z][a-z0-9_-]{0,39}$/), z.array(name()).min(1).max(1000))
      .optional()
      .describe(
        'Group that policies name in @approval → names of approvers. `human` is the human of the task, always.',
      ),
    ...channelMembers,
  })
  .describe('Who says yes to calls that policy wants approved. Omit: only the human of the task, at this machine.')

export interface ApprovalSettings {
  /** Milliseconds. */
  readonly holdMs: number
  readonly lifeMs: number
  readonly maxPending: number
  readonly maxPerHour: number
  readonly approvers: readonly {
    readonly name: string
    /** Users of this machine; the others by issuer. */
    readonly local: string | undefined
    readonly identities: readonly { readonly iss: string; readonly sub: string }[]
  }[]
  readonly groups: ReadonlyMap<string, readonly string[]>
  readonly channels: ChannelSettings
}

type Written = z.output<typeof approvalsSchema>

export function approvalsOf(written: Written = {}, around: Surroundings): ApprovalSettings {
  const approvers = (written.approvers ?? []).map(({ name: called, iss, sub, local, also = [] }, at) => {
    if ((iss === undefined) !== (sub === undefined) || (iss ?? local ?? also[0]) === undefined)
      around.report(['approvals', 'approvers', String(at)], {
        got: 'nothing by which this person can be told from others',
        allowed: 'iss and sub together, or local',
        fix: 'write iss and sub as in the ID tokens of your identity provider, or local: USER',
      })
    return { name: called, local, identities: [...(iss && sub ? [{ iss, sub }] : []), ...also] }
  })
  checkNames(
    approvers.map((one) => one.name),
    around,
  )
  checkIdentities(approvers, around)
  checkGroups(
    written.groups ?? {},
    approvers.map((one) => one.name),
    around,
  )
  return {
    holdMs: (written.hold_s ?? 25) * 1000,
    lifeMs: (written.expires_s ?? 300) * 1000,
    maxPending: written.max_pending ?? 20,
    maxPerHour: written.max_per_hour ?? 120,
    approvers,
    groups: new Map(Object.entries(written.groups ?? {})),
    channels: channelsOf(
      written,
      approvers.map((one) => one.name),
      around,
    ),
  }
}

function checkNames(names: readonly string[], { report }: Surroundings): void {
  names.forEach((called, at) => {
    if (names.indexOf(called) === at) return
    report(['approvals', 'approvers', String(at), 'name'], {
      got: `${called} a second time`,
      allowed: 'every name once',
      fix: 'put further identities of the same person under `also`',
    })
  })
}

/** Two names of one identity would be two people of one. */
function checkIdentities(approvers: ApprovalSettings['approvers'], { report }: Surroundings): void {
  const seen = new Map<string, string>()
  approvers.forEach(({ name: called, local, identities }, at) => {
    const all = [
      ...identities.map(({ iss, sub }) => `${iss} ${sub}`),
      ...(local === undefined ? [] : [`local ${local}`]),
    ]
    for (const one of new Set(all)) {
      const other = seen.get(one)
      if (other !== undefined)
        report(['approvals', 'approvers', String(at)], {
          got: `${one} under ${other} and ${called}`,
          allowed: 'every identity under one name',
          fix: 'remove one of the two, or put both names together',
        })
      seen.set(one, called)
    }
  })
}

function checkGroups(
  groups: Readonly<Record<string, readonly string[]>>,
  names: readonly string[],
  around: Surroundings,
) {
  for (const [group, members] of Object.entries(groups)) {
    if (group === ROOT_HUMAN)
      around.report(['approvals', 'groups', group], {
        got: 'a group called human',
        allowed: 'any other name',
        fix: 'choose another name: `human` always is the human of the task',
      })
    members.forEach((member, at) => {
      if (names.includes(member)) return
      const meant = nearest(member, names)
      around.report(['approvals', 'groups', group, String(at)], {
        got: member,
        allowed: 'a name of approvals.approvers',
        fix: meant === undefined ? 'add that person to approvals.approvers' : `write ${meant}, if that is meant`,
      })
    })
  }
}
