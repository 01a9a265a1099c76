/**
 * Speaks to a running gateway over its control socket, for every command that needs one. Knows the wire, not the gateway:
 * refusals come back as the `GatewayError` that was raised there.
 */
import { type IncomingMessage, request } from 'node:http'
import type { Wanted } from '../protocol/access.ts'
import type { BreakGlassStatus, OpenedBreakGlass, SealedRequest } from '../protocol/break-glass.ts'
import type {
  CompletionReason,
  DelegateBody,
  GrantBundle,
  GrantView,
  HeartbeatView,
  IntentBody,
  IssuedView,
  OpenedTask,
  OpenTaskBody,
  TaskDetail,
  TaskView,
} from '../protocol/control.ts'
import type { AccessRequestView } from '../protocol/control-access.ts'
import type { ApprovalJson } from '../protocol/control-approvals.ts'
import type { BegunView, ConnectBody, ConnectionView, ProgressView, SecretsView } from '../protocol/control-connect.ts'
import type { LeakReportsBody, LeakReportView } from '../protocol/control-leaks.ts'
import type { PendingRevocationView, RevokeLeasesBody, WarmBody, WarmedView } from '../protocol/control-leases.ts'
import type { PolicyView } from '../protocol/control-policy.ts'
import type { BlockView, LiftBody, RevokeBody, RevokedView } from '../protocol/control-revocation.ts'
import type { StatusView } from '../protocol/control-status.ts'
import type { TestedView, WebhookView } from '../protocol/control-webhooks.ts'
import { GatewayError, type ProblemCode, problems } from '../protocol/problem.ts'

/** A gateway on this machine answers in milliseconds; this bounds one that hangs. */
const TIMEOUT_MS = 10_000
const ANSWER_LIMIT_BYTES = 8 * 1024 * 1024

/** Nothing answers at the socket. The message says how to start a gateway. */
export class ControlUnreachable extends Error {
  constructor(socketPath: string, cause: unknown) {
    super(
      `No gateway is running: nothing answers at ${socketPath}. Start one with \`keyless start\` and try again; ` +
        'if it runs with other settings, name them with --config, or its data directory with KEYLESS_HOME.',
      { cause },
    )
    this.name = 'ControlUnreachable'
  }
}

type Unbound = Omit<OpenTaskBody, 'dpop_jkt'>

export interface ControlClient {
  /** @throws {GatewayError} `agent_unknown`, `invalid_scope`, `instruction_invalid`, `policy_denied`, … */
  openTask(body: Unbound): Promise<OpenedTask>
  /** The same, with a root grant that is bound to a key and so has no handle. */
  openBoundTask(body: OpenTaskBody & { readonly dpop_jkt: string }): Promise<IssuedView>
  /** @returns the task as it is now. @throws {GatewayError} `task_unknown` once the task has ended. */
  heartbeat(task: string): Promise<HeartbeatView>
  /** A fresh grant as the present one, beside it. @throws {GatewayError} `task_unknown`, `policy_denied`, `instruction_invalid` */
  renewTask(task: string): Promise<IssuedView>
  /** End the task: its grant dies at once. Default reason `completed`. @throws {GatewayError} `task_unknown` */
  completeTask(task: string, reason?: CompletionReason): Promise<void>
  /** The old grants die; policy decides afresh. @throws {GatewayError} `task_unknown`, `invalid_scope`, `policy_denied`, … */
  changeIntent(task: string, body: IntentBody): Promise<IssuedView>
  /** Grants of the step die. @throws {GatewayError} `step_unknown`, `task_unknown` */
  completeStep(task: string, step: string): Promise<void>
  suspendTask(task: string): Promise<void>
  /** @param ttlS seconds; default the preset's. @returns the fresh grant. */
  resumeTask(task: string, ttlS?: number): Promise<IssuedView>
  /** Tasks that are alive, newest first. */
  tasks(): Promise<readonly TaskView[]>
  /** One task with its living grants. */
  task(task: string): Promise<TaskDetail>
  /** @throws {GatewayError} `invalid_scope` naming everything that was too wide, `delegation_refused`, … */
  delegate(body: DelegateBody): Promise<IssuedView>
  /** By handle, token or id, with everything below it. @throws {GatewayError} `grant_invalid`, `grant_revoked`, `grant_expired` */
  revoke(grant: string): Promise<void>
  grant(id: string): Promise<GrantView>
  /** The grant with its chain, as signed, for `keyless grant verify`. */
  bundle(id: string): Promise<GrantBundle>
  /** @throws {GatewayError} `instruction_invalid` when the log knows no such human, or several. */
  forgetHuman(human: { readonly sub: string; readonly iss?: string }): Promise<{ seq: number; keys: string[] }>
  secrets(): Promise<SecretsView>
  /** @throws {GatewayError} `instruction_invalid` when there is one of this name; the next two, when there is none. */
  setSecret(name: string, value: string): Promise<void>
  rotateSecret(name: string, value: string): Promise<void>
  removeSecret(name: string): Promise<void>
  reseal(): Promise<{ readonly values: number }>
  /** @throws {GatewayError} `instruction_invalid` for a credential that no human connects. */
  beginConnection(body: ConnectBody): Promise<BegunView>
  connectProgress(ticket: string): Promise<ProgressView>
  connections(): Promise<readonly ConnectionView[]>
  /** `revoked`: at its server; null where that offers nothing. */
  disconnect(body: ConnectBody): Promise<{ readonly revoked: boolean | null }>
  policy(): Promise<PolicyView>
  /** Agents and policies are read again. @throws {GatewayError} `policy_rejected` */
  reloadPolicy(): Promise<PolicyView>
  status(): Promise<StatusView>
  /** Have credentials lie ready. @throws {GatewayError} `task_unknown`, `grant_invalid`, … */
  warm(body: WarmBody): Promise<readonly WarmedView[]>
  /** @returns how many credentials were dropped. */
  revokeLeases(body: RevokeLeasesBody): Promise<number>
  pendingRevocations(): Promise<readonly PendingRevocationView[]>
  /** End access. @throws {GatewayError} `instruction_invalid`, `grant_invalid`, `task_unknown`, `store_unavailable` */
  endAccess(body: RevokeBody): Promise<RevokedView>
  /** @throws {GatewayError} `instruction_invalid` when nothing of the kind is blocked. */
  lift(body: LiftBody): Promise<void>
  blocks(): Promise<readonly BlockView[]>
  /** In the order of the reports. @throws {GatewayError} `store_unavailable` when some could not be ended everywhere. */
  reportLeaks(body: LeakReportsBody): Promise<readonly LeakReportView[]>
  webhooks(): Promise<readonly WebhookView[]>
  /** @param id one message; undefined: all. @returns how many wait again. @throws {GatewayError} `webhook_unknown` */
  retryWebhook(name: string, id?: string): Promise<number>
  /** @throws {GatewayError} `webhook_unknown` */
  testWebhook(name: string): Promise<TestedView>
  /** Those that wait, oldest first. */
  approvals(): Promise<readonly ApprovalJson[]>
  /** @throws {GatewayError} `approval_unknown` */
  approval(id: string): Promise<ApprovalJson>
  /** As the human who owns the socket. @throws {GatewayError} `approver_refused`, `approval_closed`, `approval_unknown` */
  decideApproval(id: string, verdict: 'approve' | 'deny'): Promise<ApprovalJson>
  /** Of agents, for more access; those that the owner of the socket may decide on. */
  accessRequests(): Promise<readonly AccessRequestView[]>
  /** @throws {GatewayError} `approval_unknown` */
  accessRequest(id: string): Promise<AccessRequestView>
  /** @throws {GatewayError} `approver_refused`, `approval_closed`, `invalid_scope`, … */
  editAccess(id: string, wanted: Wanted): Promise<AccessRequestView>
  /** @throws {GatewayError} `approver_refused`, `approval_closed`, `policy_denied`, … */
  decideAccess(id: string, verdict: 'grant' | 'deny'): Promise<AccessRequestView>
  /** Public keys that verify signed grants (RFC 7517). */
  jwks(): Promise<object>
  breakGlass(): Promise<BreakGlassStatus>
  /** @throws {GatewayError} `break_glass_refused`, `invalid_scope`, `policy_denied`, `audit_unavailable`, … */
  openBreakGlass(sealed: SealedRequest): Promise<OpenedBreakGlass>
  closeBreakGlass(id: string): Promise<void>
}

/**
 * A client for the gateway that listens on `socketPath`. Every method rejects with `ControlUnreachable` when there is none.
 */
export function controlClient(socketPath: string): ControlClient {
  const call = (method: string, path: string, body?: unknown) => exchange(socketPath, method, path, body)
  const part = encodeURIComponent
  const task = (id: string, verb: string) => `/tasks/${part(id)}/${verb}`
  return {
    openTask: async (body) => (await call('POST', '/tasks', body)) as OpenedTask,
    openBoundTask: async (body) => (await call('POST', '/tasks', body)) as IssuedView,
    heartbeat: async (id) => (await call('POST', task(id, 'heartbeat'), {})) as HeartbeatView,
    renewTask: async (id) => (await call('POST', task(id, 'renew'), {})) as IssuedView,
    completeTask: async (id, reason = 'completed') => void (await call('POST', task(id, 'complete'), { reason })),
    changeIntent: async (id, body) => (await call('POST', task(id, 'intent'), body)) as IssuedView,
    completeStep: async (id, step) => void (await call('POST', task(id, `steps/${part(step)}/complete`), {})),
    suspendTask: async (id) => void (await call('POST', task(id, 'suspend'), {})),
    resumeTask: async (id, ttlS) =>
      (await call('POST', task(id, 'resume'), ttlS === undefined ? {} : { ttl_s: ttlS })) as IssuedView,
    task: async (id) => (await call('GET', `/tasks/${part(id)}`)) as TaskDetail,
    delegate: async (body) => (await call('POST', '/grants/delegate', body)) as IssuedView,
    revoke: async (grant) => void (await call('POST', '/grants/revoke', { grant })),
    grant: async (id) => (await call('GET', `/grants/${part(id)}`)) as GrantView,
    bundle: async (id) => (await call('GET', `/grants/${part(id)}/bundle`)) as GrantBundle,
    tasks: async () => ((await call('GET', '/tasks')) as { tasks: TaskView[] }).tasks,
    forgetHuman: async (human) => (await call('POST', '/log/forget', human)) as { seq: number; keys: string[] },
    secrets: async () => (await call('GET', '/secrets')) as SecretsView,
    setSecret: async (name, value) => void (await call('POST', `/secrets/${part(name)}`, { value })),
    rotateSecret: async (name, value) => void (await call('PUT', `/secrets/${part(name)}`, { value })),
    removeSecret: async (name) => void (await call('DELETE', `/secrets/${part(name)}`)),
    reseal: async () => (await call('POST', '/reseal', {})) as { values: number },
    beginConnection: async (body) => (await call('POST', '/connections', body)) as BegunView,
    connectProgress: async (ticket) => (await call('POST', '/connections/progress', { ticket })) as ProgressView,
    connections: async () => ((await call('GET', '/connections')) as { connections: ConnectionView[] }).connections,
    disconnect: async (body) =>
      (await call('POST', '/connections/disconnect', body)) as { readonly revoked: boolean | null },
    policy: async () => (await call('GET', '/policy')) as PolicyView,
    reloadPolicy: async () => (await call('POST', '/policy/reload', {})) as PolicyView,
    status: async () => (await call('GET', '/status')) as StatusView,
    warm: async (body) => ((await call('POST', '/leases/warm', body)) as { warmed: WarmedView[] }).warmed,
    revokeLeases: async (body) => ((await call('POST', '/leases/revoke', body)) as { revoked: number }).revoked,
    webhooks: async () => ((await call('GET', '/webhooks')) as { webhooks: WebhookView[] }).webhooks,
    retryWebhook: async (name, id) =>
      ((await call('POST', `/webhooks/${encodeURIComponent(name)}/retry`, { id })) as { retried: number }).retried,
    testWebhook: async (name) => (await call('POST', `/webhooks/${encodeURIComponent(name)}/test`)) as TestedView,
    endAccess: async (body) => (await call('POST', '/revocations', body)) as RevokedView,
    lift: async (body) => void (await call('POST', '/revocations/lift', body)),
    blocks: async () => ((await call('GET', '/revocations')) as { blocks: BlockView[] }).blocks,
    reportLeaks: async (body) => ((await call('POST', '/leaks', body)) as { results: LeakReportView[] }).results,
    pendingRevocations: async () =>
      ((await call('GET', '/leases/pending')) as { pending: PendingRevocationView[] }).pending,
    approvals: async () => ((await call('GET', '/approvals')) as { approvals: ApprovalJson[] }).approvals,
    approval: async (id) => (await call('GET', `/approvals/${part(id)}`)) as ApprovalJson,
    decideApproval: async (id, verdict) =>
      (await call('POST', `/approvals/${part(id)}/decide`, { verdict })) as ApprovalJson,
    accessRequests: async () => ((await call('GET', '/access-requests')) as { requests: AccessRequestView[] }).requests,
    accessRequest: async (id) => (await call('GET', `/access-requests/${part(id)}`)) as AccessRequestView,
    editAccess: async (id, wanted) =>
      (await call('POST', `/access-requests/${part(id)}/edit`, wanted)) as AccessRequestView,
    decideAccess: async (id, verdict) =>
      (await call('POST', `/access-requests/${part(id)}/decision`, { verdict })) as AccessRequestView,
    jwks: async () => (await call('GET', '/.well-known/jwks.json')) as object,
    breakGlass: async () => (await call('GET', '/break-glass')) as BreakGlassStatus,
    openBreakGlass: async (sealed) => (await call('POST', '/break-glass/open', sealed)) as OpenedBreakGlass,
    closeBreakGlass: async (id) => void (await call('POST', '/break-glass/close', { id })),
  }
}

function exchange(socketPath: string, method: string, path: string, body: unknown): Promise<unknown> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>()
  const text = body === undefined ? undefined : JSON.stringify(body)
  const headers =
    text === undefined
      ? { host: 'localhost' }
      : { host: 'localhost', 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) }
  const sent = request({ socketPath, method, path, headers, agent: false, timeout: TIMEOUT_MS })
  sent.on('timeout', () =>
    sent.destroy(new Error(`The gateway at ${socketPath} did not answer within ${TIMEOUT_MS / 1000} s.`)),
  )
  sent.on('error', (cause: NodeJS.ErrnoException) =>
    reject(isAbsent(cause) ? new ControlUnreachable(socketPath, cause) : cause),
  )
  sent.on('response', (answer) =>
    collect(answer)
      .then((received) => resolve(read(answer, received)))
      .catch(reject),
  )
  sent.end(text)
  return promise
}

function isAbsent(cause: NodeJS.ErrnoException): boolean {
  return cause.code === 'ENOENT' || cause.code === 'ECONNREFUSED' || cause.code === 'ENOTSOCK'
}

async function collect(answer: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > ANSWER_LIMIT_BYTES) throw new Error(`The gateway's answer is larger than ${ANSWER_LIMIT_BYTES} bytes.`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function read(answer: IncomingMessage, text: string): unknown {
  const status = answer.statusCode ?? 0
  if (status === 204) return undefined
  const parsed = parse(text)
  if (status >= 200 && status < 300 && typeof parsed === 'object' && parsed !== null) return parsed
  const { code, detail } = (parsed ?? {}) as { code?: unknown; detail?: unknown }
  if (typeof code === 'string' && Object.hasOwn(problems, code)) {
    throw new GatewayError(code as ProblemCode, typeof detail === 'string' ? detail : `The gateway answered ${status}.`)
  }
  throw new Error(
    `What answers at the control socket is not this gateway: HTTP ${status} without an answer that it would give.`,
  )
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
