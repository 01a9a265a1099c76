/**
 * Dynamic secrets of Vault and OpenBao: any path that answers with a lease (databases, clouds, LDAP, PKI with leases), or that says
 * when what it gave ends. The lease is prolonged and revoked at the server. What merely lies there is no matter of this provider:
 * it is read by reference (`kv.ts`).
 */
import { z } from 'zod'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import type { JsonObject } from '../oauth/issuer-exchange.ts'
import type { Placement } from '../placement/placement.ts'
import type { Credential, IssueRequest, Provider } from '../provider.ts'
import { createVaultConnection, type VaultAnswer, type VaultConnection, type VaultTools } from './connection.ts'
import type { VaultConfig } from './credential-schema.ts'
import { type Advice, vaultFailure } from './failure.ts'
import { type Filled, fill, placeholders, textsOf } from './request.ts'

export function createVault(
  config: VaultConfig,
  tools: VaultTools & { readonly placement: Placement; readonly vault?: VaultConnection | undefined },
): Provider {
  const far = { config, connection: connectionOf(config, tools), clock: tools.clock }
  const isTemplate = placeholders(textsOf(config)).length > 0
  const isLeased = config.expires_at === undefined && config.expires_in === undefined
  return {
    name: 'vault',
    narrows: 'scope',
    identity: identityOf(far),
    ...(isTemplate && { role: (endpoint, grant) => JSON.stringify(fill(config, endpoint, grant)) }),
    issue: ({ role }, signal) => issue(far, role === undefined ? config : (JSON.parse(role) as Filled), signal),
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
    derived: (credential, service) => tools.placement.derived(credential, service),
    ...(isLeased && {
      renew: (credential: Credential, request: IssueRequest, signal: AbortSignal) =>
        renew(far, credential, request, signal),
      revoke: (credential: Credential, signal: AbortSignal) => revoke(far, credential.parts?.lease_id, signal),
    }),
  }
}

interface FarSide {
  readonly config: VaultConfig
  readonly connection: VaultConnection
  readonly clock: Clock
}

function connectionOf(
  { connection }: VaultConfig,
  tools: VaultTools & { readonly vault?: VaultConnection | undefined },
): VaultConnection {
  if (connection !== undefined) return createVaultConnection(connection, tools)
  if (tools.vault !== undefined) return tools.vault
  throw new GatewayError(
    'credential_unconfigured',
    'A credential of provider vault needs to know the server: write `vault: { address: …, login: … }` at the top of the settings.',
  )
}

function identityOf({ config, connection }: FarSide): string {
  const { path, method, parameters, roles, namespace, value, parts, expires_at, expires_in } = config
  const wanted = [path, method ?? null, parameters, roles, namespace ?? null]
  return JSON.stringify(['vault', connection.identity, wanted, value, parts, expires_at ?? null, expires_in ?? null])
}

/** Of a secret with a lease. Without one, `lease_id` is empty and `lease_duration` 0, or a hint (KV version 1). */
const secretAnswer = z.object({
  lease_id: z.string(),
  lease_duration: z.int().min(0),
  data: z.record(z.string(), z.unknown()),
})

async function issue(far: FarSide, asked: Filled, signal: AbortSignal): Promise<Credential> {
  const { connection } = far
  const answer = await connection.ask(requestOf(far, asked), signal)
  const given = answer.status === 200 ? secretAnswer.safeParse(answer.json).data : undefined
  if (given === undefined) throw vaultFailure(connection.issuer, answer, ADVICE)
  const leaseId = given.lease_id === '' ? undefined : new Secret(given.lease_id)
  try {
    const expiresAt = leaseId === undefined ? endOf(far, given.data, answer) : leaseEnd(far, given, answer)
    const lease = leaseId && { lease_id: leaseId, token_ends: new Secret(String(answer.tokenEndsAtS)) }
    const { secret, parts } = valuesOf(far, given.data)
    return { secret, parts: { ...parts, ...lease }, expiresAt, ephemeral: true }
  } catch (cause) {
    // Nobody will use it, so it is ended where that is possible.
    await revoke(far, leaseId, signal).catch(() => undefined)
    throw cause
  }
}

function requestOf({ config: { method, namespace } }: FarSide, { path, parameters }: Filled) {
  const names = Object.keys(parameters)
  const chosen = method ?? (names.length === 0 ? 'GET' : 'POST')
  if (chosen === 'POST') return { method: chosen, path, body: parameters, namespace }
  const query = new URLSearchParams(Object.entries(parameters).map(([name, value]) => [name, String(value)]))
  return { method: chosen, path: names.length === 0 ? path : `${path}?${query}`, namespace }
}

function leaseEnd({ config, connection }: FarSide, given: { lease_duration: number }, answer: VaultAnswer): number {
  if (config.expires_at !== undefined || config.expires_in !== undefined)
    throw unusable(connection, 'it has a lease, which says when it ends. Remove expires_at and expires_in')
  if (given.lease_duration === 0) throw unusable(connection, 'its lease has no end. Give its role a ttl there')
  // A server ends what a token leased with the token itself ("Lease, renew, and revoke").
  return Math.min(answer.askedAtS + given.lease_duration, answer.tokenEndsAtS)
}

/** Of a secret without a lease, from the field that settings name. */
function endOf({ config, connection }: FarSide, data: JsonObject, answer: VaultAnswer): number {
  if (config.expires_in !== undefined) {
    const seconds = Number(data[config.expires_in])
    if (Number.isFinite(seconds) && seconds > 0) return answer.askedAtS + Math.floor(seconds)
    throw unusable(connection, `its field "${config.expires_in}" is no number of seconds`)
  }
  if (config.expires_at !== undefined) {
    const value = data[config.expires_at]
    const at = typeof value === 'string' && Number.isNaN(Number(value)) ? Date.parse(value) / 1000 : Number(value)
    if (Number.isFinite(at) && at > 0) return Math.floor(at)
    throw unusable(connection, `its field "${config.expires_at}" is no time`)
  }
  throw unusable(
    connection,
    'it has no lease. Name the field that says when it ends (expires_at, expires_in); what merely lies there is read by reference: provider static, value: { vault: PATH }',
  )
}

function valuesOf({ config, connection }: FarSide, data: JsonObject): Pick<Credential, 'secret' | 'parts'> {
  const read = (fields: string | readonly string[]) => {
    const texts = [fields].flat().map((field) => textOf(Object.hasOwn(data, field) ? data[field] : undefined))
    if (texts.every((text) => text !== undefined)) return new Secret(texts.join('\n'))
    throw unusable(connection, `it has no text in its field "${[fields].flat()[texts.indexOf(undefined)]}"`)
  }
  const parts = Object.entries(config.parts).map(([name, fields]) => [name, read(fields)])
  return { secret: read(config.value), parts: Object.fromEntries(parts) }
}

/** Lists are those of certificate chains. */
function textOf(value: unknown): string | undefined {
  if (Array.isArray(value)) return value.every((one) => typeof one === 'string') ? value.join('\n') : undefined
  return typeof value === 'string' && value !== '' ? value : undefined
}

const renewAnswer = z.object({ lease_duration: z.int().min(0) })

/** @returns undefined when the lease is gone, cannot be prolonged, or would not end later: then another one is issued. */
async function renew(
  { connection, config, clock }: FarSide,
  credential: Credential,
  { ttlS }: IssueRequest,
  signal: AbortSignal,
): Promise<Credential | undefined> {
  const { lease_id, token_ends } = credential.parts ?? {}
  if (lease_id === undefined) return undefined
  // Counted from now: less than what is left would shorten it.
  const increment = Math.max(ttlS, Math.ceil(credential.expiresAt - clock.nowMs() / 1000))
  const body = { lease_id: lease_id.reveal(), increment }
  const { namespace } = config
  const answer = await connection.ask({ method: 'POST', path: 'sys/leases/renew', body, namespace }, signal)
  if (answer.status === 400 || answer.status === 403 || answer.status === 404) return undefined
  const renewed = answer.status === 200 ? renewAnswer.safeParse(answer.json).data : undefined
  if (renewed === undefined) throw vaultFailure(connection.issuer, answer, ADVICE)
  const expiresAt = Math.min(answer.askedAtS + renewed.lease_duration, Number(token_ends?.reveal() ?? 0))
  return expiresAt > credential.expiresAt ? { ...credential, expiresAt } : undefined
}

/** Waits until the server has ended it (`sync`), so that success is what really happened. */
async function revoke(
  { connection, config: { namespace } }: FarSide,
  leaseId: Secret | undefined,
  signal: AbortSignal,
): Promise<void> {
  if (leaseId === undefined) return
  const body = { lease_id: leaseId.reveal(), sync: true }
  const answer = await connection.ask({ method: 'POST', path: 'sys/leases/revoke', body, namespace }, signal)
  if (answer.status !== 200 && answer.status !== 204) throw vaultFailure(connection.issuer, answer, REVOKE_ADVICE)
}

function unusable({ issuer }: VaultConnection, why: string): GatewayError {
  return new GatewayError('credential_rejected', `What ${issuer} gave cannot be used: ${why}.`)
}

const ADVICE: Advice = {
  asked: 'the path that settings name',
  400: 'Check path, role and parameters there.',
  // A token that is not root's gets 403 for a path that is not there, too.
  403: 'Allow the gateway’s policy there this path, and check path and namespace: of what is not there it says the same.',
  404: 'Check path and namespace: nothing is there.',
}

const REVOKE_ADVICE: Advice = {
  asked: 'to end a lease',
  400: 'Look at its log: what made the credential may be out of its reach.',
  403: 'Allow the gateway’s policy there: path "sys/leases/revoke" { capabilities = ["update"] }.',
  404: 'Check the namespace.',
}
