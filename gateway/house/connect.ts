/** The part of the composition root that connects humans to services: the credentials that settings have for it, and who is told of what. */
import type { Audit } from '../audit/audit.ts'
import type { Clock } from '../protocol/clock.ts'
import type { BegunView, ConnectBody, ConnectionView, ProgressView } from '../protocol/control-connect.ts'
import type { Human } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import { Connect, type Connectable } from '../provider/connection/connect.ts'
import { connectingRows } from '../provider/connection/connecting.ts'
import { type Connection, type Connector, connectionRows } from '../provider/connection/connection.ts'
import { Refreshes } from '../provider/connection/refresh.ts'
import { createConnectionServer } from '../provider/connection/server.ts'
import type { ConnectionTools } from '../provider/oauth/refresh-token.ts'
import type { FetchFor } from '../provider/provider.ts'
import type { ReadSecret } from '../provider/reference.ts'
import type { Sealed } from '../provider/sealed/sealed.ts'
import type { Settings } from '../settings.ts'

export interface HouseConnect {
  /** What providers of connections are built with. */
  readonly tools: ConnectionTools
  /** What the pages of the control door do. */
  readonly flow: Pick<Connect, 'offer' | 'leave' | 'callback'>
  /** What the owner of the socket may do. */
  readonly connections: ConnectWork
  /** Whether a human can connect this credential. */
  isConnectable(credential: string): boolean
  /** One sentence for each connection that waits for its human. */
  warnings(): Promise<string[]>
  close(): Promise<void>
}

/** @param human the owner of the socket, who is meant unless somebody else is named. @throws {GatewayError} `instruction_invalid`, … */
export interface ConnectWork {
  begin(body: ConnectBody, human: Human): Promise<BegunView>
  progress(ticket: string): Promise<ProgressView>
  list(): Promise<readonly ConnectionView[]>
  disconnect(body: ConnectBody, human: Human): Promise<{ readonly revoked: boolean | null }>
}

interface ConnectParts {
  readonly sealed: Sealed
  readonly audit: Pick<Audit, 'administer'>
  readonly clock: Clock
  readonly fetchFor: FetchFor
  readonly readSecret: ReadSecret
}

export function openHouseConnect(settings: Settings, parts: ConnectParts): HouseConnect {
  const { tenant, publicUrl } = settings
  const { sealed, audit, clock } = parts
  const rows = connectionRows(sealed)
  const connectables = new Map(connectablesIn(settings, parts))
  const base = `${publicUrl}/connect`
  const record = (kind: `admin.${string}`, { credential, human }: Connector) =>
    audit.administer(kind, { tenant, ...(human && { human }) }, { credential })
  const connectable = (credential: string): Connectable => {
    const found = connectables.get(credential)
    if (found === undefined) throw notConnectable(credential, [...connectables.keys()])
    return found
  }
  const connecting = connectingRows(sealed, () => clock.nowMs())
  const flow = new Connect({ connecting, connections: rows, connectable, clock, base, record })
  const refreshes = new Refreshes({
    rows,
    clock,
    async lost(connection) {
      process.stderr.write(`keyless: warning: ${lostWords(connection)}\n`)
      await record('admin.connection_lost', connection)
    },
  })
  const connectorOf = (body: ConnectBody, human: Human): Connector => {
    const { per } = connectable(body.credential)
    return { credential: body.credential, human: per === 'gateway' ? nobody(body) : meant(body, human, settings) }
  }
  return {
    tools: { refreshes, url: (credential) => `${base}/${encodeURIComponent(credential)}` },
    flow,
    connections: {
      begin: async (body, human) => begun(flow, connectorOf(body, human), body.device ?? false),
      async progress(ticket) {
        const progress = await flow.progress(ticket)
        if (progress.state === 'pending') return { state: 'pending', interval_s: progress.intervalS }
        return progress
      },
      list: async () => (await rows.list()).map((one) => viewOf(one, connectables.get(one.credential))),
      disconnect: async (body, human) => ({ revoked: (await flow.disconnect(connectorOf(body, human))) ?? null }),
    },
    isConnectable: (credential) => connectables.has(credential),
    async warnings() {
      if (connectables.size === 0) return []
      const known = await rows.list().catch(() => [])
      return known.filter(({ state }) => state === 'reauthorize').map(lostWords)
    },
    close: () => refreshes.close(),
  }
}

function* connectablesIn({ credentials }: Settings, parts: ConnectParts): Generator<[string, Connectable]> {
  for (const [name, config] of Object.entries(credentials)) {
    if (config.provider !== 'oauth_refresh_token') continue
    yield [name, { server: createConnectionServer(config, parts), scope: config.scope, per: config.per }]
  }
}

async function begun(flow: Connect, connector: Connector, isDevice: boolean): Promise<BegunView> {
  if (!isDevice) return flow.begin(connector)
  const { ticket, userCode, verificationUri, verificationUriComplete, intervalS } = await flow.beginDevice(connector)
  return {
    ticket,
    url: verificationUriComplete ?? verificationUri,
    user_code: userCode,
    interval_s: intervalS,
  }
}

/** Whose connection it is to be: the owner of the socket, or whom they name. */
function meant({ sub, iss }: ConnectBody, owner: Human, { trust }: Settings): { iss: string; sub: string } {
  if (sub === undefined) return { iss: owner.iss, sub: owner.sub }
  if (iss !== undefined) return { iss, sub }
  if (sub === owner.sub) return { iss: owner.iss, sub }
  const issuers = trust.issuers.flatMap((row) => (row.kind === 'human' ? row.issuer : []))
  const [only, ...more] = issuers
  if (only !== undefined && more.length === 0) return { iss: only, sub }
  throw invalid(
    `Who vouches for ${sub}? Write issuer and name: --for "${only ?? 'https://id.example.com'} ${sub}", as "human" of an entry in the log has them.`,
  )
}

function nobody({ sub }: ConnectBody): undefined {
  if (sub !== undefined)
    throw invalid('This credential has one connection for the whole gateway (per: gateway). Leave out --for.')
}

function viewOf(one: Connection, connectable: Connectable | undefined): ConnectionView {
  const { credential, human, scope, connectedAt, refreshedAt, state, issuedTo } = one
  return {
    credential,
    human: human === undefined ? null : { iss: human.iss, sub: human.sub },
    // What was connected elsewhere than settings say now is of no use.
    state: connectable === undefined ? 'unused' : connectable.server.issuedTo === issuedTo ? state : 'reauthorize',
    scope: scope ?? null,
    connected_at: connectedAt,
    refreshed_at: refreshedAt ?? null,
  }
}

function lostWords({ credential, human }: Connection): string {
  const whose = human === undefined ? 'The connection' : `The connection of ${human.sub} (${human.iss})`
  const whom = human === undefined ? '' : ` --for "${human.iss} ${human.sub}"`
  return `${whose} for credential ${credential} is not taken by its server any more, and calls are refused: keyless connect ${credential}${whom}`
}

function notConnectable(credential: string, known: readonly string[]): GatewayError {
  const which =
    known.length === 0 ? 'Settings have none of provider oauth_refresh_token.' : `Those are: ${known.join(', ')}.`
  return invalid(`${JSON.stringify(credential.slice(0, 64))} is no credential that a human connects. ${which}`)
}

function invalid(detail: string): GatewayError {
  return new GatewayError('instruction_invalid', detail)
}
