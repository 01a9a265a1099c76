/** What rows of the settings part `trust` share: agents, ids, ranges of addresses, and where the keys of an issuer are. */
import ipaddr from 'ipaddr.js'
import { z } from 'zod'
import { parseSpiffeId } from './spiffe-id.ts'

/** A check of one text, as an issue that says what is allowed and how to get there. */
function check(holds: (text: string) => boolean, allowed: string, fix: string) {
  return (value: string, context: z.RefinementCtx): void => {
    if (!holds(value)) context.addIssue({ code: 'custom', message: allowed, params: { allowed, fix } })
  }
}

export const agentId = z
  .string()
  .max(255)
  .regex(/^[\x21-\x7e]+$/)
  .describe('Id of a registered agent.')

export const spiffeId = z
  .string()
  .superRefine(check((id) => parseSpiffeId(id) !== undefined, 'a SPIFFE ID', 'write spiffe://<trust domain>/<path>'))

export const addressRange = z
  .string()
  .superRefine(check((value) => ipaddr.isValidCIDR(value), 'an address range', 'write a CIDR such as 10.20.0.0/16'))

export const keyFile = z.strictObject({ file: z.string().min(1) })

/** Only settings name the place of keys; a token never does (standards.md H28). */
const keySource = z.union([
  z.strictObject({
    uri: z
      .string()
      .superRefine(
        check(isPlainHttps, 'an https:// URL without user or fragment', 'write the jwks_uri of the issuer’s metadata'),
      ),
  }),
  keyFile,
])

function isPlainHttps(value: string): boolean {
  const url = URL.canParse(value) ? new URL(value) : undefined
  return url?.protocol === 'https:' && url.username === '' && url.password === '' && url.hash === ''
}

export const keyPlace = {
  jwks: keySource.describe('Where the public keys are: { uri: https://… } or { file: PATH }.'),
  addresses: z.array(addressRange).default([]).describe('Ranges besides public ones that `jwks.uri` may resolve to.'),
} as const

export type KeySource = z.output<typeof keySource>
