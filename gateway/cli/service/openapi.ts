/**
 * An OpenAPI 3.0, 3.1 or Swagger 2 document, read as far as a service file needs it: where the API is, how it is shown a
 * credential, what it can do. Documents come from anywhere: nothing in them is fetched, and references lead only inside.
 */
import { parse } from 'yaml'

/** A JSON value of unknown shape. */
export type Json = Readonly<Record<string, unknown>>

export interface Api {
  readonly title: string
  /** https servers, in order, variables filled with their defaults. */
  readonly servers: readonly Server[]
  readonly schemes: readonly Scheme[]
  readonly operations: readonly ApiOperation[]
}

export interface Server {
  readonly host: string
  /** `/v1`; empty for none. */
  readonly base: string
  /** Part of the host is a variable: each customer has another. */
  readonly isVariable: boolean
}

export interface Scheme {
  readonly name: string
  readonly type: string
  /** Of an API key: header, query or cookie. */
  readonly in: string | undefined
  /** Of an API key: name of the field; of http: `bearer`, `basic`. */
  readonly detail: string | undefined
  /** Position in what the document demands by default: first first; undefined: not demanded. */
  readonly demanded: number | undefined
  /** Demanded together with others: all of them travel. */
  readonly isOneOfMany: boolean
}

export interface ApiOperation {
  readonly method: string
  /** With the base of its server. */
  readonly path: string
  /** Undefined: that of the first server. */
  readonly host: string | undefined
  readonly id: string | undefined
  readonly tag: string | undefined
  readonly summary: string | undefined
  /** `security: []`: needs no credential. */
  readonly isOpen: boolean
  /** Schemas of its JSON answers from 200 to 299. */
  readonly answers: readonly unknown[]
}

const METHODS = ['get', 'put', 'post', 'delete', 'options', 'head', 'patch']

/** @throws Error saying what the text is instead. */
export function readApi(text: string): { api: Api; root: Json } {
  const root = asObject(text.trimStart().startsWith('{') ? JSON.parse(text) : parse(text))
  if (root === undefined || !(typeof root.openapi === 'string' || root.swagger === '2.0'))
    throw new Error(
      'This is no OpenAPI document. Allowed: OpenAPI 3.0 or 3.1 (`openapi: 3.…`) or Swagger 2 (`swagger: "2.0"`), YAML or JSON.',
    )
  const servers = serversOf(root)
  const base = servers[0]?.base ?? baseAlone(root)
  const operations = Object.entries(asObject(root.paths) ?? {}).flatMap(([path, item]) =>
    operationsAt(path, asObject(follow(root, item)) ?? {}, { root, servers, base }),
  )
  return {
    root,
    api: { title: textOf(asObject(root.info)?.title) ?? 'API', servers, schemes: schemesOf(root), operations },
  }
}

interface Within {
  readonly root: Json
  readonly servers: readonly Server[]
  /** Before every path, where its own servers say nothing else. */
  readonly base: string
}

function serversOf(root: Json): Server[] {
  if (root.swagger === undefined) return serverList(root.servers)
  const host = textOf(root.host)
  return host === undefined ? [] : serverList([{ url: `https://${host}${textOf(root.basePath) ?? ''}` }])
}

function serverList(servers: unknown): Server[] {
  return asList(servers).flatMap((entry) => {
    const server = asObject(entry) ?? {}
    const url = URL.parse(filledUrl(server))
    if (url === null || url.protocol !== 'https:' || url.port !== '') return []
    const isVariable = /^https:\/\/[^/]*\{/.test(textOf(server.url) ?? '')
    return [{ host: url.hostname, base: baseOf(url), isVariable }]
  })
}

/** Where no server can be used (`/v2`, `http://…/v2`), the first one still says what stands before the paths. */
function baseAlone(root: Json): string {
  const written =
    root.swagger === undefined ? filledUrl(asObject(asList(root.servers)[0]) ?? {}) : textOf(root.basePath)
  const url = URL.parse(written ?? '', 'https://relative.invalid')
  return url === null ? '' : baseOf(url)
}

const baseOf = (url: URL) => url.pathname.replace(/\/+$/, '')

function filledUrl(server: Json): string {
  const variables = asObject(server.variables) ?? {}
  return (textOf(server.url) ?? '').replace(
    /\{([^}]+)\}/g,
    (_, name: string) => textOf(asObject(variables[name])?.default) ?? name,
  )
}

function schemesOf(root: Json): Scheme[] {
  const written = asObject(asObject(root.components)?.securitySchemes) ?? asObject(root.securityDefinitions) ?? {}
  const demands = asList(root.security).map((one) => Object.keys(asObject(one) ?? {}))
  return Object.entries(written).map(([name, entry]) => {
    const scheme = asObject(follow(root, entry)) ?? {}
    const at = demands.findIndex((names) => names.includes(name))
    return {
      name,
      type: textOf(scheme.type) ?? '',
      in: textOf(scheme.in),
      detail: textOf(scheme.type) === 'apiKey' ? textOf(scheme.name) : textOf(scheme.scheme)?.toLowerCase(),
      demanded: at === -1 ? undefined : at,
      isOneOfMany: at === 0 && (demands[0]?.length ?? 0) > 1,
    }
  })
}

function operationsAt(path: string, item: Json, { root, servers, base }: Within): ApiOperation[] {
  return METHODS.flatMap((method) => {
    const operation = asObject(item[method])
    if (operation === undefined) return []
    const [own] = [...serverList(operation.servers), ...serverList(item.servers)]
    const security = operation.security ?? root.security
    return [
      {
        method: method.toUpperCase(),
        path: `${own?.base ?? base}${path}`,
        host: own === undefined || own.host === servers[0]?.host ? undefined : own.host,
        id: textOf(operation.operationId),
        tag: textOf(asList(operation.tags)[0]),
        summary: textOf(operation.summary),
        isOpen: Array.isArray(security) && security.length === 0,
        answers: answersOf(root, asObject(operation.responses) ?? {}),
      },
    ]
  })
}

function answersOf(root: Json, responses: Json): unknown[] {
  return Object.entries(responses)
    .filter(([status]) => /^2(?:\d\d|XX)$/i.test(status))
    .flatMap(([, entry]) => {
      const response = asObject(follow(root, entry)) ?? {}
      const media = Object.entries(asObject(response.content) ?? {}).filter(([type]) => /json/i.test(type))
      return [response.schema, ...media.map(([, content]) => asObject(content)?.schema)].filter(
        (one) => one !== undefined,
      )
    })
}

/** What a `$ref` stands for, inside the document; undefined for one that leads elsewhere, or in circles. */
export function follow(root: Json, value: unknown, depth = 0): unknown {
  const reference = textOf(asObject(value)?.$ref)
  if (reference === undefined) return value
  if (!reference.startsWith('#/') || depth > 16) return undefined
  const steps = reference.slice(2).split('/').map(unescaped)
  return follow(
    root,
    steps.reduce<unknown>((at, step) => asObject(at)?.[step], root),
    depth + 1,
  )
}

function unescaped(step: string): string {
  try {
    return decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~')
  } catch {
    return step
  }
}

export function asObject(value: unknown): Json | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : undefined
}

function asList(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined
}
