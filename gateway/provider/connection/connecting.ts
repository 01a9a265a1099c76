/**
 * A connection in the making: from the moment somebody asks for it until the server has said yes or no. One row of the sealed store, so
 * that any replica can go on with it and each step is taken once. Known by a ticket of which the store has the hash.
 */
import { hash, randomBytes } from 'node:crypto'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import type { Sealed } from '../sealed/sealed.ts'
import type { ConnectedHuman } from './connection.ts'

/** Milliseconds from the ticket to the callback. */
export const CONNECTING_MS = 10 * 60_000

export interface Connecting {
  readonly credential: string
  readonly human: ConnectedHuman | null
  /** Epoch milliseconds. */
  readonly untilMs: number
  readonly state: 'open' | 'sent' | 'redeeming' | 'done' | 'failed'
  /** Why it failed, for whoever waits. */
  readonly why?: string
  /** SHA-256 of what the browser that took the ticket has in its cookie. */
  readonly browser?: string
  /** `state` of the authorization request, and its PKCE verifier. */
  readonly sent?: { readonly state: string; readonly verifier: string }
  /** RFC 8628. */
  readonly device?: { readonly code: string; readonly intervalS: number; readonly nextMs: number }
}

export interface StoredConnecting {
  readonly id: string
  readonly version: number
  readonly connecting: Connecting
}

const PREFIX = 'connecting/'

export function newTicket(): string {
  return randomBytes(32).toString('base64url')
}

/** Says nothing of the ticket: it goes through the human's browser in `state`. */
export function idOf(ticket: string): string {
  return hash('sha256', ticket, 'base64url')
}

export interface ConnectingRows {
  add(id: string, connecting: Connecting): Promise<void>
  /** @throws {GatewayError} `instruction_invalid` when there is none, or none any more. */
  read(id: string): Promise<StoredConnecting>
  /** @throws {GatewayError} `instruction_invalid` when somebody else took this step. */
  change(stored: StoredConnecting, changes: Partial<Connecting>): Promise<StoredConnecting>
}

export function connectingRows(sealed: Sealed, nowMs: () => number): ConnectingRows {
  return {
    async add(id, connecting) {
      await sweep(sealed, nowMs())
      if ((await sealed.write(PREFIX + id, encode(connecting), 0)) === undefined) throw gone()
    },
    async read(id) {
      const row = await sealed.read(PREFIX + id)
      if (row === undefined) throw gone()
      const connecting = decode(row.secret)
      if (connecting.untilMs <= nowMs()) throw gone()
      return { id, version: row.version, connecting }
    },
    async change({ id, version, connecting }, changes) {
      const next = { ...connecting, ...changes }
      const changed = await sealed.write(PREFIX + id, encode(next), version)
      if (changed === undefined) throw gone()
      return { id, version: changed, connecting: next }
    },
  }
}

/** What nobody finished goes when somebody else begins. */
async function sweep(sealed: Sealed, nowMs: number): Promise<void> {
  for (const name of await sealed.names(PREFIX)) {
    const row = await sealed.read(name).catch(() => undefined)
    if (row !== undefined && decode(row.secret).untilMs <= nowMs) await sealed.write(name, null, row.version)
  }
}

function encode(connecting: Connecting): Secret {
  return new Secret(JSON.stringify(connecting))
}

/** Only what `encode` sealed comes here. */
function decode(secret: Secret): Connecting {
  return JSON.parse(secret.reveal()) as Connecting
}

function gone(): GatewayError {
  return new GatewayError(
    'instruction_invalid',
    'This link has been used or has expired. Ask for another one: keyless connect.',
  )
}
