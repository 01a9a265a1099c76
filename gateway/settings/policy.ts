/** `policy` in `keyless.yaml`: where signed bundles come from, who may sign them, and which candidate is evaluated beside them. */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { isAbsolute } from 'node:path'
import { z } from 'zod'
import { rangeSchema } from '../policy/selection.ts'
import { BUNDLE_NAME } from '../policy/source/signature.ts'
import { shippedPlace } from '../policy/tools/packs.ts'
import { secretReference } from '../provider/reference.ts'
import { read } from './advice.ts'
import { absolutePath, readText, type Surroundings } from './around.ts'
import { cleanUrl } from './listen.ts'
import { enginesOf, enginesSchema, type PolicyEngineSettings } from './policy-engines.ts'

const path = () => z.string().min(1)
const ranges = () =>
  z.array(rangeSchema).optional().describe('CIDR ranges that its address may be in besides public ones.')

const http = z.strictObject({
  url: z
    .string()
    .transform(
      read(cleanUrl, {
        allowed: 'an http(s) URL without user, query or fragment',
        fix: 'write the address of the directory: "https://policies.example.com/prod"',
      }),
    )
    .describe('Where bundle.dsse.json and the files that it names are, without the name.'),
  headers: z.record(z.string(), secretReference).optional().describe('Header: secret, by reference.'),
  addresses: ranges(),
})

const GIT_URL = {
  allowed: 'https://…, ssh://user@host/… or file:///…, without a password',
  fix: 'write "https://git.example.com/acme/policies.git", and the token by reference under `token`',
}

function gitUrl(text: string): string | null {
  const url = URL.parse(text)
  const isKnown = url !== null && ['https:', 'ssh:', 'file:'].includes(url.protocol) && url.password === ''
  if (!isKnown || (url.username !== '' && url.protocol !== 'ssh:') || url.search !== '' || url.hash !== '') return null
  return url.href
}

const git = z.strictObject({
  url: z.string().transform(read(gitUrl, GIT_URL)),
  ref: z
    .string()
    .max(200)
    .regex(/^(?!.*(?:\.\.|\/\/|@\{|\.lock(?:\/|$)))[A-Za-z0-9_][A-Za-z0-9_./-]*$/, 'a branch, or refs/tags/NAME')
    .optional()
    .describe('Branch, or a whole name such as refs/tags/prod. Default main.'),
  path: z
    .string()
    .max(200)
    .regex(/^[A-Za-z0-9_][A-Za-z0-9._-]*(?:\/[A-Za-z0-9_][A-Za-z0-9._-]*)*$/, 'a plain relative path')
    .optional()
    .describe('Directory of bundle.dsse.json in the repository. Default: its root.'),
  token: secretReference.optional().describe('Password of HTTP Basic for https://, by reference.'),
  user: z
    .string()
    .min(1)
    .max(100)
    .regex(/^[^:\s]+$/)
    .optional()
    .describe('User that goes with `token`. Default git.'),
  ssh_key: path().optional().describe('Private key for ssh://.'),
  known_hosts: path().optional().describe('Keys of hosts for ssh://; a host that is not in it is refused.'),
  ca: path().optional().describe('PEM file of the roots for https://. Default: those of the system.'),
})

const source = z.union([z.strictObject({ dir: path() }), http, z.strictObject({ git })])

export const policySchema = z
  .strictObject({
    source: source
      .optional()
      .describe(
        'Directory, address or git repository that holds a bundle signed with `keyless policy sign`. In place of `policies`.',
      ),
    keys: z
      .array(z.string().min(1))
      .min(1)
      .max(32)
      .optional()
      .describe('Who may sign: PEM files with Ed25519 public keys, or the PEM itself.'),
    signatures: z.int().min(1).max(8).optional().describe('Different keys that have to sign. Default 1.'),
    name: z.string().regex(BUNDLE_NAME).optional().describe('Name that a bundle must have. Default: any.'),
    min_version: z.int().min(1).optional().describe('No older version is taken, not even by a new gateway. Default 1.'),
    poll_s: z.int().min(1).max(86_400).optional().describe('Seconds between two looks at the source. Default 30.'),
    shadow: z
      .strictObject({
        policies: z.array(path()).min(1).describe('The candidate, written like `policies`. It decides nothing.'),
        sample: z.number().gt(0).max(1).optional().describe('Share of the decisions that are compared. Default 1.'),
      })
      .optional()
      .describe('A candidate that is evaluated beside what decides; where it would decide otherwise is recorded.'),
    engines: enginesSchema.optional(),
  })
  .describe('Policies that are taken up while the gateway runs.')

type Written = z.output<typeof policySchema>
type WrittenSource = z.output<typeof source>

/** Of the settings, paths absolute. */
export type PolicySourceSettings =
  | { readonly dir: string }
  | z.output<typeof http>
  | { readonly git: z.output<typeof git> & { readonly ref: string; readonly path: string } }

export interface PolicySettings {
  /** Undefined: the files of `policies` decide. */
  readonly source:
    | {
        readonly from: PolicySourceSettings
        /** At least one, Ed25519. */
        readonly keys: readonly KeyObject[]
        /** Default 1. */
        readonly signatures: number
        readonly name: string | undefined
        /** Default 1. */
        readonly minVersion: number
        /** Default 30. */
        readonly pollS: number
      }
    | undefined
  readonly shadow: { readonly policies: readonly string[]; readonly sample: number } | undefined
  /** That have to agree with what policies allow. Default: none. */
  readonly engines: readonly PolicyEngineSettings[]
}

export function policyOf(
  written: { readonly policy?: Written | undefined; readonly policies?: unknown },
  around: Surroundings,
): PolicySettings {
  const { policy = {} } = written
  const shadow = policy.shadow && {
    policies: policyPlaces(policy.shadow.policies, ['policy', 'shadow', 'policies'], around),
    sample: policy.shadow.sample ?? 1,
  }
  const engines = enginesOf(policy.engines, around)
  if (policy.source === undefined) {
    for (const name of ['keys', 'signatures', 'name', 'min_version', 'poll_s'] as const)
      if (policy[name] !== undefined)
        around.report(['policy', name], {
          got: 'no policy.source that it could be about',
          allowed: 'together with policy.source',
          fix: 'add policy.source, or remove this line',
        })
    return { source: undefined, shadow, engines }
  }
  if (written.policies !== undefined)
    around.report(['policies'], {
      got: 'policies and policy.source',
      allowed: 'one of the two: nobody could say which of them decides',
      fix: 'remove `policies`, and sign those files with `keyless policy sign`',
    })
  const keys = (policy.keys ?? []).flatMap((key, index) => keyOf(key, index, around))
  const signatures = policy.signatures ?? 1
  if (new Set(keys.map((key) => key.export({ type: 'spki', format: 'der' }).toString('base64'))).size < signatures)
    around.report(['policy', 'keys'], {
      got: policy.keys === undefined ? 'nothing' : `fewer different keys than policy.signatures, ${signatures}`,
      allowed: 'PEM files with Ed25519 public keys, one for each that has to sign',
      fix: 'make a pair with `keyless policy keygen policy.key`, and name policy.key.pub here',
    })
  return {
    source: {
      from: sourceOf(policy.source, around),
      keys,
      signatures,
      name: policy.name,
      minVersion: policy.min_version ?? 1,
      pollS: policy.poll_s ?? 30,
    },
    shadow,
    engines,
  }
}

function sourceOf(written: WrittenSource, around: Surroundings): PolicySourceSettings {
  if ('dir' in written) return { dir: absolutePath(written.dir, around) }
  if ('url' in written) return written
  const { ref = 'main', path: inside = '', ...rest } = written.git
  const { protocol } = new URL(rest.url)
  const at = ['policy', 'source', 'git']
  if (protocol === 'ssh:' && (rest.ssh_key === undefined || rest.known_hosts === undefined))
    around.report(at, {
      got: 'ssh:// without ssh_key or without known_hosts',
      allowed: 'both: nothing is taken from the user who runs the gateway',
      fix: 'name a private key and a file made with ssh-keyscan',
    })
  const files = Object.fromEntries(
    (['ssh_key', 'known_hosts', 'ca'] as const).flatMap((name) => {
      const file = rest[name]
      return file === undefined ? [] : [[name, absolutePath(file, around)]]
    }),
  )
  return { git: { ...rest, ...files, ref: ref.startsWith('refs/') ? ref : `refs/heads/${ref}`, path: inside } }
}

function keyOf(text: string, index: number, around: Surroundings): KeyObject[] {
  const isPem = text.includes('-----BEGIN')
  const file = isPem || isAbsolute(text) ? text : absolutePath(text, around)
  const pem = isPem ? text : readText(file)
  try {
    if (pem?.includes('PRIVATE KEY')) throw new Error('a private key')
    const key = createPublicKey(pem ?? '')
    if (key.asymmetricKeyType === 'ed25519') return [key]
  } catch {
    // reported below
  }
  around.report(['policy', 'keys', String(index)], {
    got: pem === undefined ? `no readable file ${file}` : 'no Ed25519 public key',
    allowed: 'a PEM file with an Ed25519 public key',
    fix: 'make a pair with `keyless policy keygen policy.key`, and name policy.key.pub',
  })
  return []
}

/** @returns absolute paths of what `policies` names, at `at`; a pack that there is not is reported. */
export function policyPlaces(entries: readonly string[], at: readonly string[], around: Surroundings): string[] {
  return entries.flatMap((entry, index) => {
    const place = shippedPlace(entry)
    if (typeof place !== 'object') return [place ?? absolutePath(entry, around)]
    around.report([...at, String(index)], place)
    return []
  })
}
