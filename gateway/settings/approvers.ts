/** By which channels approvers decide, as settings have it: signing in at pages, tokens for programs, and who grants more access. */
import { z } from 'zod'
import { nearest } from '../protocol/nearest.ts'
import { type SignInConfig, signInSchema } from '../provider/oauth/sign-in-schema.ts'
import { secretReference } from '../provider/reference.ts'
import type { Surroundings } from './around.ts'

/** Members of `approvals`. */
export const channelMembers = {
  sign_in: signInSchema.optional(),
  tokens: z
    .record(z.string(), secretReference)
    .optional()
    .describe(
      'Name of an approver → bearer token, by reference, with which programs of that approver decide at the control door over TCP. Default none.',
    ),
  access: z
    .array(z.string())
    .max(64)
    .optional()
    .describe(
      'Groups whose members may also grant agents the access that they ask for. Default: only the human that the agent works for.',
    ),
}

export interface ChannelSettings {
  /** Undefined: there are no pages. */
  readonly signIn: SignInConfig | undefined
  /** Name of an approver → where its token is. */
  readonly tokens: Readonly<Record<string, z.output<typeof secretReference>>>
  /** Groups. */
  readonly access: readonly string[]
}

interface Written {
  readonly sign_in?: SignInConfig | undefined
  readonly tokens?: ChannelSettings['tokens'] | undefined
  readonly access?: readonly string[] | undefined
  readonly groups?: Readonly<Record<string, readonly string[]>> | undefined
}

/** @param names of approvers. */
export function channelsOf(written: Written, names: readonly string[], { report }: Surroundings): ChannelSettings {
  const check = (path: readonly string[], got: string, known: readonly string[], what: string) => {
    if (known.includes(got)) return
    const meant = nearest(got, known)
    report(['approvals', ...path], {
      got,
      allowed: known.length === 0 ? `a name of approvals.${what}, which has none` : `one of ${known.join(', ')}`,
      fix: meant === undefined ? `add it to approvals.${what}` : `write ${meant}, if that is meant`,
    })
  }
  for (const name of Object.keys(written.tokens ?? {})) check(['tokens', name], name, names, 'approvers')
  const groups = Object.keys(written.groups ?? {})
  for (const [at, group] of (written.access ?? []).entries()) check(['access', String(at)], group, groups, 'groups')
  return { signIn: written.sign_in, tokens: written.tokens ?? {}, access: written.access ?? [] }
}
