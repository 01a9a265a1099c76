/** A Vault or OpenBao server as this gateway is logged in there: one per configured server, shared by all that ask it. */
import type { Clock } from '../../protocol/clock.ts'
import { exchange, type IssuerAnswer } from '../oauth/issuer-exchange.ts'
import type { Assertions, FetchFor } from '../provider.ts'
import { type ReadSecret, referenceIdentity, type SecretReference } from '../reference.ts'
import type { VaultConnectionConfig } from './schema.ts'
import { createOwnTokens, type OwnToken, type SendToVault } from './token.ts'

export interface VaultRequest {
  readonly method: 'GET' | 'POST'
  /** Below `/v1/`, encoded where that is needed. */
  readonly path: string
  readonly body?: Readonly<Record<string, unknown>>
  /** Default: that of the connection. */
  readonly namespace?: string | undefined
}

export interface VaultAnswer extends IssuerAnswer {
  /** Epoch seconds before the request was sent: what the answer calls a duration is counted from here. */
  readonly askedAtS: number
  /** Epoch seconds; Infinity: never. When the token that asked ends, everything leased with it ends. */
  readonly tokenEndsAtS: number
}

export interface VaultConnection {
  /** What tells servers, namespaces and logins apart, without a secret. */
  readonly identity: string
  /** As messages call it. */
  readonly issuer: string
  /**
   * Ask with the gateway's own token. When the server does not know that token any more, as after a revocation or a restore, with
   * another one, once.
   * @throws {GatewayError} when no answer comes, or no login succeeds. A refusal of what is asked is an answer.
   */
  ask(request: VaultRequest, signal: AbortSignal): Promise<VaultAnswer>
}

export interface VaultTools {
  readonly fetchFor: FetchFor
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly assertions: Assertions
}

export function createVaultConnection(config: VaultConnectionConfig, tools: VaultTools): VaultConnection {
  const { clock } = tools
  const issuer = `Vault at ${new URL(config.address).host}`
  const send = sender(config, issuer, tools)
  const tokens = createOwnTokens(config, { ...tools, send, issuer })

  async function askWith(token: OwnToken, request: VaultRequest, signal: AbortSignal): Promise<VaultAnswer> {
    const askedAtS = Math.floor(clock.nowMs() / 1000)
    const answer = await send({ ...request, token: token.secret, signal })
    return { ...answer, askedAtS, tokenEndsAtS: token.endsAtS }
  }

  /** 403 is what Vault says to a token that it does not know and to one that may not: looking itself up tells which. */
  async function isUnknown(token: OwnToken, signal: AbortSignal): Promise<boolean> {
    const { status } = await send({ method: 'GET', path: 'auth/token/lookup-self', token: token.secret, signal })
    return status === 403
  }

  return {
    identity: identityOf(config),
    issuer,
    async ask(request, signal) {
      const token = await tokens.current(signal)
      const answer = await askWith(token, request, signal)
      if (answer.status !== 403 || !(await isUnknown(token, signal))) return answer
      tokens.forget(token)
      return askWith(await tokens.current(signal), request, signal)
    },
  }
}

function sender(config: VaultConnectionConfig, issuer: string, { fetchFor }: VaultTools): SendToVault {
  const base = config.address.replace(/\/+$/, '')
  const fetch = fetchFor(config.addresses)
  return ({ method, path, body, token, namespace = config.namespace, signal }) =>
    exchange(fetch, issuer, {
      method,
      url: `${base}/v1/${path}`,
      headers: {
        // Agents and proxies of Vault take no request without it that could come from elsewhere (SSRF).
        'X-Vault-Request': 'true',
        ...(token && { 'X-Vault-Token': token.reveal() }),
        ...(namespace !== undefined && { 'X-Vault-Namespace': namespace }),
      },
      ...(body !== undefined && { body }),
      signal,
    })
}

function identityOf({ address, namespace, addresses, login }: VaultConnectionConfig): string {
  const proof = Object.entries(login).map(([name, value]) => [
    name,
    typeof value === 'string' ? value : referenceIdentity(value as SecretReference),
  ])
  return JSON.stringify([address, namespace ?? null, addresses, proof])
}
