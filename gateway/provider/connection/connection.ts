/**
 * Connections: for which human (or for the whole gateway) an authorization server has given a refresh token. Kept in the sealed store
 * under a name of which nobody can read the human. A connection is one row, so that its tokens and its state change together.
 */
import { hash } from 'node:crypto'
import type { Human } from '../../protocol/grant.ts'
import { Secret } from '../../protocol/secret.ts'
import type { Sealed } from '../sealed/sealed.ts'

export type ConnectedHuman = Pick<Human, 'iss' | 'sub'>

/** Whose connection. */
export interface Connector {
  /** Name of the credential in settings. */
  readonly credential: string
  /** Undefined: it serves everybody. */
  readonly human: ConnectedHuman | undefined
}

export interface Connection extends Connector {
  readonly refreshToken: Secret
  /** What it took the place of: kept until it has proved itself by a refresh. */
  readonly previous?: Secret | undefined
  /** Server and client that it was issued by and to: it is sent nowhere else. */
  readonly issuedTo: string
  /** As granted; undefined where the server did not say. */
  readonly scope?: string | undefined
  /** Epoch seconds. */
  readonly connectedAt: number
  readonly refreshedAt?: number | undefined
  /** `reauthorize`: the server takes its tokens no more. */
  readonly state: 'connected' | 'reauthorize'
}

export interface StoredConnection {
  readonly connection: Connection
  readonly version: number
}

/** Connections as rows of the sealed store; what is said of versions and claims there holds here. */
export interface ConnectionRows {
  read(connector: Connector): Promise<StoredConnection | undefined>
  claim(connector: Connector, forMs: number): Promise<StoredConnection | 'taken' | undefined>
  write(connection: Connection, expected: number): Promise<number | undefined>
  remove(connector: Connector, expected: number): Promise<boolean>
  list(): Promise<readonly Connection[]>
}

const PREFIX = 'connection/'

export function connectionRows(sealed: Sealed): ConnectionRows {
  return {
    async read(connector) {
      const row = await sealed.read(nameOf(connector))
      return row && { connection: decode(row.secret), version: row.version }
    },
    async claim(connector, forMs) {
      const row = await sealed.claim(nameOf(connector), forMs)
      return row === undefined || row === 'taken' ? row : { connection: decode(row.secret), version: row.version }
    },
    write: (connection, expected) => sealed.write(nameOf(connection), encode(connection), expected),
    remove: async (connector, expected) => (await sealed.write(nameOf(connector), null, expected)) !== undefined,
    async list() {
      const rows = await Promise.all((await sealed.names(PREFIX)).map((name) => sealed.read(name)))
      return rows.flatMap((row) => (row === undefined ? [] : decode(row.secret)))
    },
  }
}

export function nameOf({ credential, human }: Connector): string {
  const whose = human === undefined ? 'gateway' : hash('sha256', JSON.stringify([human.iss, human.sub]), 'base64url')
  return `${PREFIX}${credential}/${whose}`
}

/** As it lies under its seal. */
interface Written {
  readonly credential: string
  readonly human: ConnectedHuman | null
  readonly refresh_token: string
  readonly previous: string | null
  readonly issued_to: string
  readonly scope: string | null
  readonly connected_at: number
  readonly refreshed_at: number | null
  readonly state: Connection['state']
}

function encode(c: Connection): Secret {
  const written: Written = {
    credential: c.credential,
    human: c.human ? { iss: c.human.iss, sub: c.human.sub } : null,
    refresh_token: c.refreshToken.reveal(),
    previous: c.previous?.reveal() ?? null,
    issued_to: c.issuedTo,
    scope: c.scope ?? null,
    connected_at: c.connectedAt,
    refreshed_at: c.refreshedAt ?? null,
    state: c.state,
  }
  return new Secret(JSON.stringify(written))
}

/** Only what `encode` sealed comes here. */
function decode(secret: Secret): Connection {
  const w = JSON.parse(secret.reveal()) as Written
  return {
    credential: w.credential,
    human: w.human ?? undefined,
    refreshToken: new Secret(w.refresh_token),
    previous: w.previous === null ? undefined : new Secret(w.previous),
    issuedTo: w.issued_to,
    scope: w.scope ?? undefined,
    connectedAt: w.connected_at,
    refreshedAt: w.refreshed_at ?? undefined,
    state: w.state,
  }
}
