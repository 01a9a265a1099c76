/**
 * The parts of settings that need more than a default: paths, agents, limits that must agree, the address of Redis, and
 * what deserves a warning. Each reports what is wrong instead of stopping, so that all problems are listed together.
 */
import { X509Certificate } from 'node:crypto'
import { userInfo } from 'node:os'
import { isAbsolute } from 'node:path'
import type { Selection } from '../policy/selection.ts'
import type { Agent } from '../protocol/grant.ts'
import { absolutePath, readText, type Surroundings } from './around.ts'
import { HARD_TTL_S, type WrittenSettings } from './schema.ts'

/** A path says so: a slash, a leading dot or the ending. Anything else is a shipped name. */
function isServicePath(entry: string): boolean {
  return isAbsolute(entry) || entry.includes('/') || entry.startsWith('.') || /\.ya?ml$/.test(entry)
}

export function placedService(entry: string | Selection, absolute: (path: string) => string): string | Selection {
  if (typeof entry === 'string') return isServicePath(entry) ? absolute(entry) : entry
  return isServicePath(entry.use) ? { ...entry, use: absolute(entry.use) } : entry
}

export function agentsOf(written: WrittenSettings, around: Surroundings): [Agent, ...Agent[]] {
  const [first, ...rest] = (written.agents ?? []).map(
    (agent): Agent => ({
      id: agent.id,
      owner: agent.owner,
      purpose: agent.purpose,
      riskTier: agent.risk_tier ?? 'low',
      ...(agent.orchestrators !== undefined && { orchestrators: agent.orchestrators }),
      ...(agent.labels !== undefined && { labels: agent.labels }),
    }),
  )
  if (first === undefined)
    return [{ id: 'spiffe://keyless.local/agent/default', owner: localUser(), purpose: 'local work', riskTier: 'low' }]
  const agents: [Agent, ...Agent[]] = [first, ...rest]
  agents.forEach(({ id }, index) => {
    if (agents.findIndex((agent) => agent.id === id) === index) return
    around.report(['agents', String(index), 'id'], {
      got: `${id} a second time`,
      allowed: 'every id once',
      fix: 'remove one of the two, or give it an id of its own',
    })
  })
  return agents
}

/** Who runs the gateway. Containers often run under a number that no user has. */
export function localUser(): string {
  try {
    return userInfo().username
  } catch {
    return `uid:${process.getuid?.() ?? 0}`
  }
}

export function grantsOf(
  written: WrittenSettings,
  around: Surroundings,
): { ttl: { defaultS: number; maxS: number }; maxDepth: number; heartbeatS: number } {
  const maxS = written.grants?.max_ttl_s ?? HARD_TTL_S
  const defaultS = written.grants?.ttl_s ?? Math.min(900, maxS)
  if (defaultS > maxS) {
    around.report(['grants', 'ttl_s'], {
      got: String(defaultS),
      allowed: `at most grants.max_ttl_s, ${maxS}`,
      fix: `lower ttl_s to ${maxS}, or raise max_ttl_s`,
    })
  }
  return {
    ttl: { defaultS, maxS },
    maxDepth: written.grants?.max_depth ?? 3,
    heartbeatS: written.grants?.heartbeat_s ?? 15,
  }
}

export function limitsOf(written: NonNullable<WrittenSettings['limits']>) {
  return {
    concurrency: written.agent_concurrency ?? 1024,
    queue: written.agent_queue ?? 1024,
    queueTimeoutMs: written.queue_timeout_ms ?? 10_000,
    connections: written.connections ?? 10_000,
  }
}

/** The text of each PEM file; one that cannot be read or holds no certificate is reported. */
export function rootsOf(files: readonly string[], place: readonly string[], around: Surroundings): string[] {
  return files.map((file, index) => {
    const path = absolutePath(file, around)
    const pem = readText(path)
    try {
      new X509Certificate(pem ?? '')
    } catch {
      around.report([...place, String(index)], {
        got: pem === undefined ? `no readable file ${path}` : `no certificate in ${path}`,
        allowed: 'a PEM file with root certificates',
        fix: 'correct the path, or remove it',
      })
    }
    return pem ?? ''
  })
}

export function redisOf(written: WrittenSettings, around: Surroundings): { readonly url: string } | undefined {
  const place = written.redis?.url
  if (place === undefined) return undefined
  const url =
    typeof place === 'string'
      ? place
      : 'env' in place
        ? process.env[place.env]
        : readText(absolutePath(place.file, around))?.trim()
  if (url === undefined || !/^rediss?:\/\//.test(url)) {
    const where =
      typeof place === 'string'
        ? 'this line'
        : 'env' in place
          ? `the environment variable ${place.env}`
          : `the file ${absolutePath(place.file, around)}`
    around.report(['redis', 'url'], {
      got: url === undefined ? `nothing in ${where}` : `no Redis URL in ${where}`,
      allowed: 'redis://host:port/db or rediss://…',
      fix: `put the URL into ${where}`,
    })
  }
  // Not enumerable: the URL may carry a password, and settings get printed.
  return Object.defineProperty({ url: '' }, 'url', { value: url ?? '', enumerable: false })
}

/** Every `{ env: NAME }` below a value. */
export function envNames(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, child]: [string, unknown]) =>
    key === 'env' && typeof child === 'string' ? [child] : envNames(child),
  )
}
