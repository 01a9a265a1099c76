/**
 * In which dialect a refusal is written: the service's own, and where it has none, the one that the client is known by.
 * Looked up only when a call is refused. Pure.
 */
import type { Inbound } from '../protocol/message.ts'
import type { Dialect, Endpoint } from '../protocol/service.ts'
import { fieldValue } from './fields.ts'

type Client = readonly [userAgent: RegExp, dialect: Dialect]

/** Clients that read one shape whatever the service; git and git-lfs share a host with an API of another dialect. */
const OWN_SHAPE: readonly Client[] = [
  [/^git\//, 'git'],
  [/^git-lfs\//, 'github'],
]

/** Where the service says nothing: hosts of no service above all. */
const KNOWN: readonly Client[] = [
  [/^(?:Async)?OpenAI\/|^codex/i, 'openai'],
  [/^(?:Async)?Anthropic\/|^claude-cli\//i, 'anthropic'],
  [/^(?:google-|gcloud|gl-|.*\bgoogle-api-)/i, 'google'],
  [/^(?:GitHub CLI|octokit|PyGithub)|\boctokit\b/i, 'github'],
  [/^(?:@slack|slackclient|python-?slack)/i, 'slack'],
  [/^Stripe\//i, 'stripe'],
  [/^(?:npm|pnpm|yarn)\//i, 'npm'],
  [/^(?:docker|containerd|buildkit|skopeo|buildah|podman|containers|go-containerregistry|oras)\b/i, 'docker'],
  [/^(?:kubectl|helm)\b|\bkubernetes\//i, 'kubernetes'],
  [/^(?:Boto3|Botocore|aws-)/i, 'aws-xml'],
]

/** @param endpoint where the request was going, if that was found out. */
export function dialectFor(inbound: Inbound, endpoint: Endpoint | undefined): Dialect {
  const userAgent = inbound.client.userAgent ?? ''
  const own = spokenBy(userAgent, OWN_SHAPE)
  if (own !== undefined) return own
  const declared = endpoint?.service.dialect ?? 'problem'
  if (declared !== 'problem') return declared
  const known = spokenBy(userAgent, KNOWN)
  if (known === 'aws-xml') return awsProtocol(inbound)
  return known ?? (isMcp(inbound) ? 'mcp' : 'problem')
}

function spokenBy(userAgent: string, clients: readonly Client[]): Dialect | undefined {
  return clients.find(([pattern]) => pattern.test(userAgent))?.[1]
}

/** One SDK speaks three protocols; the body of the request tells which. */
function awsProtocol({ rawHeaders }: Inbound): Dialect {
  const contentType = fieldValue(rawHeaders, 'content-type') ?? ''
  if (/json/i.test(contentType)) return 'aws-json'
  return /urlencoded/i.test(contentType) ? 'aws-query' : 'aws-xml'
}

/** MCP streamable HTTP: every request after the first names its version, every POST accepts both forms of an answer. */
function isMcp({ rawHeaders }: Inbound): boolean {
  if (fieldValue(rawHeaders, 'mcp-protocol-version') !== undefined) return true
  const accept = fieldValue(rawHeaders, 'accept') ?? ''
  return accept.includes('text/event-stream') && accept.includes('application/json')
}
