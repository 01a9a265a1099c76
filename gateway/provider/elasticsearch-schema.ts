/** Settings of `elasticsearch`: which cluster, by whom the gateway is known there, and the role that a key gets. */
import { z } from 'zod'
import { GatewayError } from '../protocol/problem.ts'
import { addressRange, endpointUrl, refuseCleartext } from './endpoint-schema.ts'
import { secretReference } from './reference.ts'
import { credentialTerms } from './terms.ts'

type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json }

/** As the cluster knows it: `{ indices: [{ names: […], privileges: […] }], cluster: […] }`. */
export type RoleDescriptor = { readonly [name: string]: Json }

const json: z.ZodType<Json> = z.json()

export const elasticsearchSchema = z
  .strictObject({
    provider: z.literal('elasticsearch'),
    ...credentialTerms,
    /** URL of the cluster, without a path of the API. */
    url: endpointUrl,
    /** Who makes the keys: a user, or a bearer token of a service account. An API key cannot make keys with roles. */
    own: z.union(
      [
        z.strictObject({ username: z.string().min(1), password: secretReference }),
        z.strictObject({ token: secretReference }),
      ],
      {
        error: 'is { username, password: { file: path } } or { token: { file: path } }',
      },
    ),
    /**
     * Operation (`search.read`) or access (`read`, `write`, `admin`) → role descriptor of a key for it. A text `{params.NAME}` stands for
     * that value of the operation's path; in a list, for several of them if it has commas.
     */
    roles: z.record(z.string().min(1), z.record(z.string(), json)).refine((roles) => Object.keys(roles).length > 0, {
      error: 'says nothing: write { read: { indices: [{ names: ["{params.index}"], privileges: [read] }] } }',
    }),
    /** Ranges outside the public Internet that `url` may resolve to. Default: none. */
    addresses: z.array(addressRange).default([]),
  })
  .superRefine(refuseCleartext(['url']))

export type ElasticsearchConfig = z.output<typeof elasticsearchSchema>

const PARAMETER = /^\{params\.(\w+)\}$/

/** Names of indices, aliases and data streams, with wildcards; no exclusion, no date math, no regular expression. */
const INDEX = /^[a-z0-9.*][a-z0-9_.*+-]{0,254}$/

/** @throws {GatewayError} `credential_unconfigured` for a value that could be read as more than names of indices. */
export function fillRole(role: RoleDescriptor, params: Readonly<Record<string, string>>): RoleDescriptor {
  return Object.fromEntries(Object.entries(role).map(([name, value]) => [name, filled(value, params)]))
}

function filled(value: Json, params: Readonly<Record<string, string>>): Json {
  if (typeof value === 'string') return namesIn(value, params)?.join(',') ?? value
  if (typeof value !== 'object' || value === null) return value
  if (!Array.isArray(value)) return fillRole(value as RoleDescriptor, params)
  return (value as readonly Json[]).flatMap((one): readonly Json[] =>
    typeof one === 'string' ? (namesIn(one, params) ?? [one]) : [filled(one, params)],
  )
}

/** Chosen by the agent. @returns undefined for a text of the operator's own. */
function namesIn(text: string, params: Readonly<Record<string, string>>): readonly string[] | undefined {
  const name = PARAMETER.exec(text)?.[1]
  if (name === undefined) return undefined
  const names = (Object.hasOwn(params, name) ? (params[name] ?? '') : '').split(',')
  if (names.every((one) => INDEX.test(one))) return names.toSorted()
  throw new GatewayError(
    'credential_unconfigured',
    `No API key is meant for this call: {params.${name}} of its path is missing, or is not a list of index names.`,
  )
}
