/** Upstream APIs and what can be done there, as the catalogue (`policies/services/*.yaml`) describes them. */

import { HostTable, isHostPattern, parseHostPattern } from './host-pattern.ts'
import type { Parameter } from './parameter.ts'

/** Where a credential goes, and which slots an agent's own values are removed from first. */
export type Slot = Place & {
  /**
   * Name of the part of the credential (`Credential.parts`) that goes here. Absent: its secret. Where slots name parts, all of
   * these are filled; otherwise the first slot alone is.
   */
  readonly part?: string
}

type Place =
  | { readonly in: 'header'; readonly name: string; readonly prefix?: string }
  /** Password of Basic. `username` gives way to the part `username` of a credential that has one. */
  | { readonly in: 'basic'; readonly username: string }
  | { readonly in: 'query'; readonly name: string }
  | { readonly in: 'cookie'; readonly name: string }
  /** One of the `Sec-WebSocket-Protocol` that a handshake offers: where browsers, which set no headers, put a key. */
  | { readonly in: 'subprotocol'; readonly prefix: string }
  /** Member of a JSON body, by JSON pointer. */
  | { readonly in: 'body'; readonly pointer: string }
  /** Field of an `application/x-www-form-urlencoded` body. */
  | { readonly in: 'form'; readonly name: string }
  /** The first segment of the path, which begins with `prefix`: `/bot<token>/sendMessage`. */
  | { readonly in: 'path'; readonly prefix: string }
  /** No value travels: the request is signed with it. */
  | {
      readonly in: 'signature'
      readonly scheme: 'aws4' | 'hmac'
      /** Of `aws4`: what the service is called in signatures (`s3`), the usual name first. */
      readonly services?: readonly string[]
    }
  /** No value travels: it is shown in TLS. */
  | { readonly in: 'certificate' }

export type Access = 'read' | 'write' | 'admin'
export type Sensitivity = 'public' | 'internal' | 'confidential' | 'restricted'

/** A named thing one can do at a service. */
export interface Operation {
  /** Without the service: `issues.read`. */
  readonly id: string
  /** With the service: `github:issues.read`. The word that grants, policies and records use. */
  readonly name: string
  readonly access: Access
  readonly sensitivity: Sensitivity
  /** The answer is itself a credential: denied unless a policy names the operation. */
  readonly returnsSecret: boolean
  readonly irreversible: boolean
  /** It may be asked for as a WebSocket. Default no: frames are not decided one by one. */
  readonly websocket: boolean
  /** JSON pointers (RFC 6901, `*` for any member) to the credentials in its answer, where `returnsSecret`. */
  readonly captures: readonly string[]
  /**
   * What it needs, as the upstream's own authorization calls it, for providers that narrow by it: GitHub's `{ contents: 'read' }`.
   * Absent: nobody has said, and such a provider gives nothing for it.
   */
  readonly permissions?: Readonly<Record<string, string>>
  /** Its requests, as the service file writes them: `GET /repos/{owner}/{repo}/issues`. Names in braces stand in ARNs of `iam` too. */
  readonly match?: readonly string[]
  /** What it needs in AWS IAM: an action, and the ARN it is about with names in braces. Absent: nobody has said. */
  readonly iam?: readonly string[]
  /** Words of the service file by which policies choose: `resource.labels.contains("payments")`. Absent: none. */
  readonly labels?: readonly string[]
  /** What of its requests policies can read: `context.params.amount`. Absent: nothing. */
  readonly parameters?: readonly NamedParameter[]
}

/** A value of a request under the name that the service file gives it. */
export interface NamedParameter {
  readonly name: string
  /** `query.NAME`, or `body.` and a JSON pointer. */
  readonly key: string
  readonly from: Parameter
  readonly type: ParameterType
}

export const PARAMETER_TYPES = ['string', 'long', 'bool', 'strings'] as const

export type ParameterType = (typeof PARAMETER_TYPES)[number]

/** How refusals are shaped so that the service's clients display them. */
export const DIALECTS = [
  'problem',
  'openai',
  'anthropic',
  'google',
  'github',
  'slack',
  'stripe',
  'aws-xml',
  'aws-query',
  'aws-json',
  'kubernetes',
  'docker',
  'npm',
  'mcp',
  'git',
] as const

export type Dialect = (typeof DIALECTS)[number]

/** Command-line tools that a launcher can point at a service, with placeholders in the files where they keep credentials. */
export type Tool = 'git' | 'kubectl' | 'gcloud' | 'docker' | 'npm' | 'pip'

export interface Service {
  /** Short name: `github`. */
  readonly name: string
  readonly title: string
  /** Hosts this service answers on, as written: exact names, and patterns (`host-pattern.ts`). `servesHost` tests, `plainHost` gives one. */
  readonly hosts: readonly string[]
  /** Ports allowed on those hosts. Default 443. */
  readonly ports: readonly number[]
  /** `https` unless settings say `unsafe_cleartext`: a credential is never attached on `http`. */
  readonly scheme: 'http' | 'https'
  /** Every place where this API takes a credential. The first one is where ours is attached. Empty: none is attached. */
  readonly slots: readonly Slot[]
  readonly operations: readonly Operation[]
  /** As one operation sees it: the API gave the client a credential for this very request, and it passes; ours stays away. */
  readonly passesOwn?: boolean
  /** Cookies that it sets are no credentials. Default no: a session outlives the lease that opened it. */
  readonly passesCookies?: boolean
  /** Some operations are told by a form: it has to be read before it is known what a request asks for. */
  readonly saysInForms?: boolean
  /** CIDR ranges outside the public Internet that this service may resolve to; empty for public APIs. */
  readonly addresses: readonly string[]
  readonly dialect: Dialect
  /** Environment variable → placeholder that passes the SDK's start-up check. */
  readonly placeholders: Readonly<Record<string, string>>
  /** Environment variables by which an SDK can be pointed at a reverse route. */
  readonly baseUrls: readonly string[]
  /** Tools of this service that are told by files, not by variables, where to go and what to send. */
  readonly tools: readonly Tool[]
  /** Name of the credential in settings, usually the service's own name; undefined for the service `unmanaged`. */
  readonly credential: string | undefined
}

/**
 * Whether a value travels that gives access to whoever reads it. Otherwise an answer holds nothing that is worth hiding, and need not
 * come whole or plain.
 */
export function carriesSecret({ slots }: Pick<Service, 'slots'>): boolean {
  // Beside a signature of `hmac` travel the `values` of its credential, such as a passphrase; beside one of AWS nothing that serves alone.
  return slots.some((slot) => slot.in !== 'certificate' && !(slot.in === 'signature' && slot.scheme === 'aws4'))
}

/** Memo of a pure function of the hosts. */
const tables = new WeakMap<readonly string[], HostTable<true>>()

/** Whether a host belongs to a service. @param host canonical, as `Inbound` and `Outbound` carry it. */
export function servesHost({ hosts }: Pick<Service, 'hosts'>, host: string): boolean {
  if (!isHostPattern(host) && hosts.includes(host)) return true
  const table = tables.get(hosts) ?? tableOf(hosts)
  return table.match(host) !== undefined
}

function tableOf(hosts: readonly string[]): HostTable<true> {
  const table = new HostTable<true>()
  for (const host of hosts) {
    const pattern = isHostPattern(host) ? parseHostPattern(host) : undefined
    if (pattern !== undefined) table.add(pattern, true)
  }
  tables.set(hosts, table)
  return table
}

/** The first host that is no pattern: where reverse routes lead, and what can be tried. Undefined: there is none. */
export function plainHost({ hosts }: Pick<Service, 'hosts'>): string | undefined {
  return hosts.find((host) => !isHostPattern(host))
}

/** What a request turned out to be: service and operation by canonical path. */
export interface Endpoint {
  readonly service: Service
  /** `<service>:unlisted` when no operation matches. */
  readonly operation: Operation
  readonly scheme: 'http' | 'https'
  readonly host: string
  readonly port: number
  /** Path that policy decides on: decoded where that is unambiguous, no query. */
  readonly path: string
  /**
   * The same as it is at a host that holds no name of the path: `/reports/2026` for `/2026` at `reports.s3.amazonaws.com`. Absent: `path`.
   * Paths that are said without a host mean this one, so that no other host makes another place of them.
   */
  readonly place?: string
  /** Path and query as received, as sent. */
  readonly rawPath: string
  /** Values captured by `{name}` in the operation's path pattern, and in the pattern of its host. */
  readonly params: Readonly<Record<string, string>>
}
