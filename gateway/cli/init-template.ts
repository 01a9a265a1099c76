/** The commented `keyless.yaml` that `keyless init` writes; `keyless.example.yaml` is it, for two services (tested). */

export const SCHEMA_FILE = 'keyless.schema.json'

export interface ChosenService {
  readonly name: string
  /** Environment variable to read the key from: the one that the service's own tools use. */
  readonly env: string
  /** Entry of `credentials` that its file names, if not its own name. */
  readonly credential?: string | undefined
  /** Example of a host, where each customer has another and there is none for everybody. */
  readonly host?: string | undefined
  /** Requests are signed (AWS), so the key is a pair. */
  readonly isSigned?: boolean
}

function credentialLine({ name, env, credential = name, isSigned = false }: ChosenService): string {
  if (!isSigned) return `  ${credential}: { provider: static, value: { env: ${env} } }`
  const source = 'access_key_id: { env: AWS_ACCESS_KEY_ID }, secret_access_key: { env: AWS_SECRET_ACCESS_KEY }'
  return `  ${credential}: { provider: aws, region: us-east-1, session: none, source: { ${source} } }   # better a role: docs/providers/aws.md`
}

/** The file as text. Commented lines show the defaults; every uncommented one is in force. */
export function settingsTemplate(chosen: readonly ChosenService[]): string {
  const services = chosen
    .map(({ name, host }) => (host === undefined ? name : `{ use: ${name}, hosts: [${host}] }`))
    .join(', ')
  const credentials = [...new Set(chosen.map(credentialLine))]
  return `# yaml-language-server: $schema=./${SCHEMA_FILE}
#
# Keyless settings. Unknown keys are errors; paths are relative to this file; every field: docs/settings.md.
# Secrets never stand here, only where to read them: { env: NAME }, { file: PATH }, { sealed: NAME }; all forms: docs/references.md.

# Upstream APIs: shipped names, or paths to .yaml files of your own. A host that belongs to none is refused.
services: [${services}]
# Where each customer has a host of its own, it is named: { use: atlassian, hosts: [acme.atlassian.net] }.
# Words by which policies choose, as resource.labels: { use: github, labels: [inside] }. What calls say, as context.params: \`params\` in service files.

# The key behind each service. Agents never see it; the gateway attaches it to the calls that policy allows.
${credentials.length > 0 ? `credentials:\n${credentials.join('\n')}` : '# credentials:'}
#   slack: { provider: static, value: { file: /run/secrets/slack-token } }
#   billing:
#     provider: oauth_client_credentials
#     token_url: https://id.example.com/token
#     client_id: keyless
#     client_auth: client_secret_basic
#     client_secret: { env: BILLING_CLIENT_SECRET }
#     scope: invoices:read
#   mail:                       # the account of the human behind the task: keyless connect mail
#     provider: oauth_refresh_token
#     issuer: https://id.mail.example.com
#     client_id: keyless
#     client_auth: client_secret_basic
#     client_secret: { sealed: mail-client }   # keyless secret set mail-client
#     scope: mail:read offline_access
#   openai:                     # nothing secret is kept: it trusts the gateway's published keys: docs/providers/workload-identity.md
#     provider: workload_identity
#     token_url: https://auth.openai.com/oauth/token
#     format: json
#     token: { assertion: { audience: "https://api.openai.com/v1", algorithm: RS256, claims: { sub: "{agent}" } } }
#     parameters: { identity_provider_id: idp_…, service_account_id: sa_… }
#   github:                     # for each call a token for its repository and permission: docs/providers/github-app.md
#     provider: github_app
#     client_id: Iv23liAbCdEf012345
#     private_key: { file: /run/secrets/github.pem }
#   aws:                        # a session of this role for each task, no wider than its grant: docs/providers/aws.md
#     provider: aws
#     region: eu-central-1
#     source: { assertion: {} }
#     role_arn: arn:aws:iam::123456789012:role/agents
#   orders:                     # a database user of its own for each task: docs/providers/vault.md
#     provider: vault
#     path: database/creds/{role}
#     roles: { read: orders-ro, write: orders-rw }
#     parts: { username: username }

# Vault or OpenBao, for credentials like that one and for secrets by reference: { vault: secret/data/billing, field: api_key }.
# vault:
#   address: https://vault.example.com:8200
#   login: { method: approle, role_id: 5ad0e0a1-7f3c, secret_id: { file: /run/secrets/vault-secret-id } }

# Who may be given tasks. The first is the default. Without this: one agent that belongs to you.
# agents:
#   - id: spiffe://example.com/agents/triage
#     owner: ana@example.com
#     purpose: triage support tickets
#     risk_tier: low            # low, medium, high
#     labels: [support]         # policies choose by them: principal.labels.contains("support")

# Issuers whose tokens say who people and workloads are. Without this: nobody, and tasks are opened over the socket alone.
# trust:
#   issuers:
#     - kind: human             # ID tokens of people
#       issuer: https://id.example.com
#       audience: keyless-cli
#       jwks: { uri: https://id.example.com/jwks }
#     - kind: github-actions    # also: jwt-svid, kubernetes, oidc
#       jwks: { uri: https://token.actions.githubusercontent.com/.well-known/jwks }
#       agents:
#         - match: { repository_id: "42", repository_owner_id: "7", ref: refs/heads/main }
#           agent: spiffe://example.com/agents/triage

# Cedar policies: files, or directories of *.cedar. Without this: [shipped], which a list of your own replaces.
# policies: [shipped, pack:read-only-by-default, ./rules]   # packs: keyless policy packs
# They read labels, parameters of calls, what the task did before, and its plan: keyless run --plan "github:issues.*" (docs/policy.md).
# Or a bundle that is signed with \`keyless policy sign\` and taken up while the gateway runs.
# policy:
#   source: { git: { url: "https://git.example.com/acme/policies.git", path: prod, token: { env: POLICY_TOKEN } } }
#   keys: [./policy.key.pub]
#   shadow: { policies: [./next] }   # a candidate: decides nothing, differences are recorded
#   engines:                         # that have to agree: docs/policy-engines.md
#     - { name: team, kind: opa, url: "http://127.0.0.1:8181/v1/data/keyless/decision", addresses: [127.0.0.1/32] }

# Doors. Loopback; write 0.0.0.0:8080 only with proxy_tls, or inside a network you trust.
# listen:
#   proxy: 127.0.0.1:8080       # agents
#   proxy_tls: { cert: ./door.pem, key: ./door.key }
#   proxy_protocol: { from: [10.0.0.7/32] }         # balancers that say whose connection it is, and must
#   control: 127.0.0.1:8081     # health, keys, metadata
#   control_socket: /run/keyless/control.sock

# Keys, log and state of this replica. Default: $KEYLESS_HOME, or ~/.keyless.
# data_dir: /var/lib/keyless
# keys_dir: /etc/keyless/keys   # shared by replicas; make them with: keyless keys --dir DIRECTORY

# grants:
#   ttl_s: 900                  # seconds a task lives if it asks for nothing
#   max_ttl_s: 3600             # seconds it may ask for; never more than an hour
#   max_depth: 3                # delegations below a root grant; never more than 8
#   heartbeat_s: 15             # two missed, and the task of \`keyless run\` ends

# Who may report credentials that turned up where none may be, and bait that nothing legitimate uses (docs/leaks.md).
# leaks:
#   reporters: { scanner: { token: { env: LEAK_REPORTER_TOKEN } } }
#   canaries: { build-log: { look: github, sha256: 3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7 } }   # as \`keyless canary add build-log --look github\` prints it
#   canary_ends: task

# What ends access besides \`keyless revoke\` (docs/revocation.md).
# revocation:
#   automatic:
#     leak: task                # a credential in an answer ends the task, not only itself
#     anomaly: { action: suspend, calls_per_minute: {}, new_operations: {} }

# Who says yes where policy says @approval (docs/approvals.md).
# approvals:
#   hold_s: 25                  # a call waits this long before it is told to come back; never more than 55
#   groups: { on-call: [ana, ben] }
#   approvers:
#     - { name: ana, iss: https://id.acme.test, sub: 00u1a2b3 }
#     - { name: ben, local: ben } # whoever runs the gateway here, with \`keyless approvals\`
#   sign_in: { issuer: https://id.example.com, client_id: keyless, client_secret: { env: KEYLESS_OIDC_SECRET } }   # pages at <public_url>/approve

# limits:
#   agent_concurrency: 1024     # calls of one agent at once; a stream counts until it ends
#   agent_queue: 1024           # calls of one agent that wait for one of these to end
#   connections: 10000          # to the proxy door; beyond, the oldest idle one is closed

# The CA that clients trust: for which hosts it may sign, and how long it lives.
# ca:
#   names: services             # any: every host, where policies allow hosts of no service
#   days: 90

# audit:
#   durability: fsync           # on disk before a key is attached; relaxed only hands it to the system
#   origin: keyless.example.com/production

# Who is told what happens (docs/webhooks.md), and whose security events end access (docs/signals.md).
# webhooks:
#   security: { url: https://hooks.example.com/keyless, keys: [{ env: WEBHOOK_KEY }], kinds: [leak.*, revocation.*] }
#   chat: { url: { env: SLACK_WEBHOOK_URL }, format: slack, kinds: [approval.requested] }
# signals:
#   receive: [{ issuer: https://id.example.com, jwks: { uri: https://id.example.com/keys } }]

# Emergency access that two custodians sign, while Redis, the identity provider or the log is down (docs/break-glass.md).
# break_glass:
#   custodians:   # keyless break-glass keygen NAME --out FILE
#     - { name: ana@acme.test, key: Yp1-_0ikPo6EPOwpGTP-ksgEuNYimxiN0SnF2uFJOZM }
#     - { name: ben@acme.test, key: QJ8WH8jSXe5sXILUF9VjEWs5Xd964sdQDf0pV_uui0c }
#   scope: "github:issues.*"
#   journal: /var/lib/keyless-journal   # on another disk than data_dir

# Several replicas share leases, grants and counters through Redis.
# redis: { url: { env: REDIS_URL } }
# public_url: https://keyless.example.com

# upstream:
#   connect_timeout_ms: 5000
#   headers_timeout_ms: 300000  # models think long before the first byte
#   body_timeout_ms: 300000     # silence inside an answer; 0 waits for ever
#   ca: [./internal-root.pem]   # further roots that upstreams may present
#   hosts: { billing.internal: 10.0.0.7 }
#   proxy: { url: { env: CORPORATE_PROXY }, no_proxy: [.corp.example] }   # every call leaves through it

# tenant: default
`
}
