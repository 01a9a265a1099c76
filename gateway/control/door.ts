/**
 * The control door: instructions to the gateway, never calls through it. Two listeners: the unix socket for the person on this
 * machine, TCP for what anyone may read. Every instruction goes through `serveInstruction`.
 */
import type { Server, ServerOptions } from 'node:https'
import type { AddressInfo } from 'node:net'
import { hostname, networkInterfaces } from 'node:os'
import swagger from '@fastify/swagger'
import type { FastifyInstance } from 'fastify'
import { renewTls, type TlsFiles, tlsOptions } from '../door-tls.ts'
import type { ReadyView } from '../protocol/control-status.ts'
import { GatewayError } from '../protocol/problem.ts'
import { isBoundAddress } from './address.ts'
import { createApp, DESCRIPTION } from './app.ts'
import { type ApprovalDoor, addApprovalRoutes, addApprovalStatus } from './approve/approval-routes.ts'
import { type ApproverDoor, addApprovers, addLocalAccess } from './approve/approver-routes.ts'
import { addBreakGlassRoutes, type EmergencyDoor } from './approve/break-glass-routes.ts'
import { addConnectPages, type ConnectPagesDoor } from './connect/pages.ts'
import { addConnectRoutes, type ConnectDoor } from './connect/routes.ts'
import { guardNames, namesOf, refusePages } from './guard.ts'
import { addLeaseRoutes, type LeaseDoor } from './leases/lease-routes.ts'
import { addSecretRoutes, type SecretDoor } from './leases/secret-routes.ts'
import { type AssertionDoor, addAssertionRoutes } from './oauth/assertion-routes.ts'
import { addOauthRoutes, type OauthDoor } from './oauth/routes.ts'
import { type AuthzenDoor, addAuthzenRoutes } from './policy/authzen-routes.ts'
import { addPolicyRoutes, type PolicyDoor } from './policy/routes.ts'
import { refusalOf, writeProblem } from './problem.ts'
import { addPublicRoutes, type PublicDoor } from './public-routes.ts'
import { addLogRoutes, type LogDoor } from './records/log-routes.ts'
import { addPersonalRoutes, type PersonalDoor } from './records/personal-routes.ts'
import { createReaders } from './records/reader.ts'
import { addRecordsRoutes, type RecordsDoor } from './records/routes.ts'
import { addWitnessRoutes, type WitnessDoor } from './records/witness-routes.ts'
import { recordThrown } from './refused.ts'
import { addLeakRoutes, type LeakDoor } from './signal/leak-routes.ts'
import { addRevokeRoutes, type RevokeDoor } from './signal/revoke-routes.ts'
import { addSignalRoutes, type SignalDoor } from './signal/routes.ts'
import { addWebhookRoutes, type WebhookDoor } from './signal/webhook-routes.ts'
import { clearSocketPath, listenOnSocket } from './socket.ts'
import { addGrantRoutes } from './tasks/grant-routes.ts'
import { addLifeRoutes } from './tasks/life-routes.ts'
import { addTaskRoutes, type TaskDoor } from './tasks/task-routes.ts'

/** Of a full entry bundle (C2SP tlog-tiles). */
const ENTRIES_PER_TILE = 256

export interface ControlDoorOptions
  extends TaskDoor,
    OauthDoor,
    LogDoor,
    WitnessDoor,
    PersonalDoor,
    SecretDoor,
    ConnectDoor,
    EmergencyDoor,
    ConnectPagesDoor,
    SignalDoor,
    WebhookDoor,
    AssertionDoor,
    Pick<AuthzenDoor, 'authzen'>,
    Partial<Pick<RevokeDoor, 'revocations'>>,
    Omit<RecordsDoor, 'records'> {
  /** Undefined: there is no index, and no routes for it. */
  readonly records: RecordsDoor['records'] | undefined
  /** Undefined: no routes for the policies in force. */
  readonly policies?: PolicyDoor['policies']
  /** Undefined: no routes for approvals. */
  readonly approvals?: ApprovalDoor['approvals']
  /** Undefined: nobody approves here, and agents ask for nothing. */
  readonly approvers?: ApproverDoor['approvers']
  /** Undefined: nobody reports leaks. */
  readonly leaks?: LeakDoor['leaks']
  /** Undefined: no routes for credentials. */
  readonly leases?: LeaseDoor['leases']
  /** Who may read the log over TCP: name → SHA-256 of the token. */
  readonly readers: ReadonlyMap<string, Buffer>
  /** Address of the TCP listener. */
  readonly host: string
  /** 0 for any free port. */
  readonly port: number
  readonly socketPath: string
  /** TLS on the TCP listener. Default: plain HTTP. */
  readonly tls?: TlsFiles
  readonly grants: TaskDoor['grants'] & OauthDoor['grants'] & PublicDoor['grants']
  readonly identities: OauthDoor['identities']
  ready(): Promise<ReadyView>
  readonly metrics: PublicDoor['metrics']
}

export interface ControlDoor {
  readonly port: number
  /** Whether dialling this address, or a name of ours, would reach the control door: a proxied request must never get there. */
  isControlAddress(host: string, port: number): boolean
  /** Take nothing new, finish what is under way, and after `graceMs` cut what is left. */
  drain(graceMs: number): Promise<void>
}

/** @throws {Error} naming the setting when an address is taken, or when a gateway is already running here. */
export async function openControlDoor(o: ControlDoorOptions): Promise<ControlDoor> {
  await clearSocketPath(o.socketPath)
  const isDraining = { now: false }
  const local = await buildApp(o, isDraining, onSocket(o))
  const open = await buildApp(o, isDraining, overTcp(o), o.tls && tlsOptions(o.tls))
  await Promise.all([local.ready(), open.ready()])
  await listenOnSocket(local.server, o.socketPath)
  try {
    await open.listen({ host: o.host, port: o.port })
  } catch (cause) {
    await local.close()
    throw new Error(
      `The control door cannot listen on ${o.host}:${o.port}: ${(cause as Error).message}. Is another gateway running? If not, name a free port with the setting listen.control, as in 127.0.0.1:8181.`,
      { cause },
    )
  }
  const { port } = open.server.address() as AddressInfo
  const names = namesOf(o).add(hostname().toLowerCase())
  const stopRenewal =
    o.tls && renewTls(open.server as Server, o.tls, (cause) => o.report?.(cause, 'listen.control_tls'))
  return {
    port,
    isControlAddress: (host, dialled) =>
      dialled === port && (names.has(host) || isBoundAddress(host, { boundTo: o.host, own: ownAddresses() })),
    async drain(graceMs) {
      isDraining.now = true
      stopRenewal?.()
      await Promise.all([close(local, graceMs), close(open, graceMs)])
    },
  }
}

/** Routes of one listener. */
interface Side {
  /** The unix socket. */
  readonly isLocal: boolean
  addOwn(app: FastifyInstance): void
  /** As `addLogRoutes` takes it. */
  readonly mayRead: Parameters<typeof addLogRoutes>[2]
}

/** For whoever can open the socket: the human of this machine. */
function onSocket(o: ControlDoorOptions): Side {
  const { records, leases, revocations, approvers, policies, approvals, leaks } = o
  return {
    isLocal: true,
    mayRead: () => undefined,
    addOwn(app) {
      addTaskRoutes(app, o)
      addLifeRoutes(app, o, o.human)
      addGrantRoutes(app, o)
      addOauthRoutes(app, o, o.human)
      addPersonalRoutes(app, o)
      if (leases) addLeaseRoutes(app, { ...o, leases })
      addBreakGlassRoutes(app, o)
      if (revocations) addRevokeRoutes(app, { ...o, revocations })
      if (approvers) addLocalAccess(app, { ...o, approvers }, o.human)
      addSecretRoutes(app, o)
      if (policies) addPolicyRoutes(app, { ...o, policies })
      addConnectRoutes(app, o)
      if (approvals) addApprovalRoutes(app, { ...o, approvals }, () => ({ human: o.human, via: 'socket' }))
      addWebhookRoutes(app, o)
      if (leaks) addLeakRoutes(app, { ...o, leaks }, true)
      if (records) addRecordsRoutes(app, { ...o, records }, undefined)
    },
  }
}

/** For everybody else: nobody is known by the connection. */
function overTcp(o: ControlDoorOptions): Side {
  const { records, approvers, leaks } = o
  const readerOf = createReaders(o.readers, o.clock)
  return {
    isLocal: false,
    async mayRead(request) {
      const { name: reader } = await readerOf(request)
      const asked = { tile: request.url }
      await o.recordReading({ reader, address: request.ip ?? 'unknown', asked, found: ENTRIES_PER_TILE })
    },
    addOwn(app) {
      guardNames(app, o)
      addLifeRoutes(app, o, undefined)
      addOauthRoutes(app, o, undefined)
      addConnectPages(app, o)
      if (approvers) addApprovers(app, { ...o, approvers })
      addSignalRoutes(app, o)
      if (leaks) addLeakRoutes(app, { ...o, leaks }, false)
      if (records) addRecordsRoutes(app, { ...o, records }, readerOf)
    },
  }
}

async function buildApp(
  o: ControlDoorOptions,
  isDraining: { readonly now: boolean },
  side: Side,
  tls?: ServerOptions,
): Promise<FastifyInstance> {
  const app = createApp(o.clock, tls)
  app.setErrorHandler<Error>(async (error, request, reply) => {
    const refusal = await recordThrown(request, { error, refusal: refusalOf(error) }, o)
    if (refusal.code === 'internal') o.report?.(error, request.id)
    writeProblem(request, reply, refusal)
  })
  app.setNotFoundHandler((request, reply) => writeProblem(request, reply, unknownRoute()))
  app.addHook('onRequest', async (request) => {
    if (isDraining.now)
      throw new GatewayError('draining', 'The gateway is shutting down and takes no more instructions.')
    refusePages(request, o)
  })
  await app.register(swagger, { openapi: DESCRIPTION })
  // By any name: what these say is the same for everybody, and counts by its signatures.
  await app.register(async (routes) => {
    addLogRoutes(routes, o, side.mayRead)
    addWitnessRoutes(routes, o)
    addAssertionRoutes(routes, o)
  })
  await app.register(async (routes) => {
    side.addOwn(routes) // hooks first: they guard only the routes added after them
    addPublicRoutes(routes, o)
    addAuthzenRoutes(routes, o, side.isLocal)
    if (o.approvals) addApprovalStatus(routes, { ...o, approvals: o.approvals })
  })
  return app
}

function unknownRoute(): GatewayError {
  return new GatewayError(
    'route_unknown',
    'The control door has no such route here. /openapi.json lists those it has; tasks and status are on the unix socket only.',
  )
}

function ownAddresses(): ReadonlySet<string> {
  return new Set(Object.values(networkInterfaces()).flatMap((found) => (found ?? []).map(({ address }) => address)))
}

async function close(app: FastifyInstance, graceMs: number): Promise<void> {
  const timer = setTimeout(() => app.server.closeAllConnections(), graceMs)
  try {
    await app.close()
  } finally {
    clearTimeout(timer)
  }
}
