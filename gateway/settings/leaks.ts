/** Settings of the leak watch: who may report what leaked, what ends then, and which canaries are planted. */

import { createPublicKey } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { keyPlace } from '../identity/trust-parts.ts'
import { LOOKS, type PlantedCanary } from '../protocol/canary.ts'
import { type SecretReference, secretReference } from '../provider/reference.ts'
import { read } from './advice.ts'
import { absolutePath, type Surroundings } from './around.ts'
import { cleanUrl } from './listen.ts'

/** Where GitHub publishes the keys that sign its messages to partners. */
const GITHUB_KEYS = 'https://api.github.com/meta/public_keys/secret_scanning'

const ENDS = ['grant', 'task', 'agent'] as const
const name = () => z.string().regex(/^[a-z0-9][a-z0-9_-]{0,62}$/)

export const leaksSchema = z
  .strictObject({
    reporters: z
      .record(name(), z.strictObject({ token: secretReference.describe('Bearer token, by reference.') }))
      .optional()
      .describe('Scanners that may report to POST /leaks of the control door. Default: only who may open its socket.'),
    github: z
      .strictObject({
        keys: z
          .record(z.string().regex(/^[0-9a-f]{16,128}$/), z.string().min(1))
          .optional()
          .describe('Key identifier: PEM file of the public key. Default: they are fetched.'),
        url: z
          .string()
          .transform(
            read(cleanUrl, {
              allowed: 'an http(s) URL without user, query or fragment',
              fix: `write "${GITHUB_KEYS}"`,
            }),
          )
          .optional()
          .describe(`Where the keys are fetched. Default ${GITHUB_KEYS}.`),
        addresses: keyPlace.addresses.describe('CIDR ranges that it may be in besides public ones.'),
      })
      .optional()
      .describe('Take what GitHub sends to partners of its secret scanning: by its signature.'),
    ends: z
      .enum(ENDS)
      .optional()
      .describe(
        'What ends with what was reported, besides that itself: the grant, its task, or every grant of its agent. Default grant.',
      ),
    standing_keys: z
      .enum(['alert', 'block'])
      .optional()
      .describe(
        'A standing key cannot be revoked by the gateway: only say so, or refuse all calls that use it until somebody lifts that. Default alert.',
      ),
    canaries: z
      .record(
        name(),
        z.strictObject({
          look: z.enum(Object.keys(LOOKS) as [keyof typeof LOOKS]).describe('What it looks like.'),
          sha256: z
            .string()
            .regex(/^[0-9a-f]{64}$/)
            .describe('Hex SHA-256 of it.'),
        }),
      )
      .optional()
      .describe(
        'Bait that nothing legitimate uses: `keyless canary add NAME` makes one and prints its row. Default none.',
      ),
    canary_ends: z
      .enum(['nothing', ...ENDS])
      .optional()
      .describe('What ends when an agent uses one; the call is refused and reported in any case. Default nothing.'),
  })
  .describe('What becomes of credentials that turn up where none may be.')

type Ends = (typeof ENDS)[number]

export interface LeakSettings {
  readonly reporters: Readonly<Record<string, { readonly token: SecretReference }>>
  /** Undefined: nothing of GitHub is taken. */
  readonly github:
    | {
        readonly keys: Readonly<Record<string, string>> | undefined
        readonly url: string
        readonly addresses: readonly string[]
      }
    | undefined
  readonly ends: Ends
  readonly standingKeys: 'alert' | 'block'
  readonly canaries: Readonly<Record<string, PlantedCanary>>
  readonly canaryEnds: Ends | 'nothing'
}

export function leaksOf(written: z.output<typeof leaksSchema> = {}, around: Surroundings): LeakSettings {
  const { github } = written
  return {
    reporters: written.reporters ?? {},
    github: github && {
      keys: github.keys && keysIn(github.keys, around),
      url: github.url ?? GITHUB_KEYS,
      addresses: github.addresses,
    },
    ends: written.ends ?? 'grant',
    standingKeys: written.standing_keys ?? 'alert',
    canaries: written.canaries ?? {},
    canaryEnds: written.canary_ends ?? 'nothing',
  }
}

/** Key identifier → PEM. */
function keysIn(files: Readonly<Record<string, string>>, around: Surroundings): Record<string, string> {
  return Object.fromEntries(
    Object.entries(files).flatMap(([id, file]) => {
      const path = absolutePath(file, around)
      try {
        const pem = readFileSync(path, 'utf8')
        if (createPublicKey(pem).asymmetricKeyDetails?.namedCurve === 'prime256v1') return [[id, pem]]
      } catch {} // said below
      around.report(['leaks', 'github', 'keys', id], {
        got: `${path}, which holds no public key on P-256`,
        allowed: 'a PEM file as GitHub publishes it',
        fix: 'check the path, or leave keys out to have them fetched',
      })
      return []
    }),
  )
}
