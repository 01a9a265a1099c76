/**
 * The certificate authority that intercepted TLS hangs on. Its roots are on disk, shared by replicas, succeed each other, and
 * are constrained to the hosts of the services (RFC 5280 §4.2.1.10). For all other hosts, whose refusals must be said inside TLS
 * too, there is a root that only this process has: nobody can steal it from a disk.
 */
import { makePrivate } from '../private-file.ts'
import type { Clock } from '../protocol/clock.ts'
import { fixedEnd } from '../protocol/host-pattern.ts'
import { servesHost } from '../protocol/service.ts'
import { createLeafKey } from './leaf.ts'
import { BACKDATE_MS, makeRoot, type Root, readRoot } from './root.ts'
import { addRoot, publish, type RootFiles, readFiles, removeRoot, rootsIn } from './root-files.ts'
import { type Succession, succession, type Wanted } from './succession.ts'

/** What a TLS server for one host needs. */
export interface Leaf {
  /** PKCS #8 PEM of the P-256 key that all leaves of this process share. Never written down. */
  readonly key: string
  /** Leaf, issuing CA and root, PEM. The root is sent too: some clients match it by its key (clients.md §0.11). */
  readonly cert: string
  /** Milliseconds since the Unix epoch from which a new leaf should take over. */
  readonly renewAtMs: number
}

export interface CertificateAuthority {
  /** What agents must trust, PEM: the root that signs for most hosts, the others on disk, then that of this process. */
  readonly caPem: string
  /** Another number means that leaves issued before may hang on a root that is trusted no more. */
  readonly generation: number
  /** What keeps the authority from renewing itself, and what to do; undefined: nothing. */
  readonly trouble: string | undefined
  /** Whether this is a host of a service: its leaf is worth keeping before those of others. */
  serves(host: string): boolean
  /** A fresh leaf for a host name or IP address (no brackets). Callers keep it until `renewAtMs`. @throws Error without a root for it. */
  issueLeaf(host: string): Leaf
  /** Follow what others changed on disk, and make a successor when it is due. Never rejects: see `trouble`. */
  refresh(): Promise<void>
}

export interface AuthorityTerms {
  /** Hosts that the roots on disk must sign for, with the names below them, and no others; undefined: any. */
  readonly hosts: Wanted
  /** How long a root lives, days, 1 to 365. */
  readonly days: number
  /** Hosts of the services, patterns included. Default: `hosts`. */
  readonly served?: readonly string[]
}

/** What the setting `ca` means for these services. */
export function authorityTerms(
  { names, days }: { readonly names: 'services' | 'any'; readonly days: number },
  services: readonly { readonly hosts: readonly string[] }[],
): AuthorityTerms {
  const served = [...new Set(services.flatMap(({ hosts }) => hosts))]
  return { hosts: names === 'any' ? undefined : [...new Set(served.map(fixedEnd))], days, served }
}

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const LEAF_LIFE_MS = DAY_MS
/** Replicas that start at once may each add a root for hosts of their own; more than a few rounds means that they never agree. */
const MAX_ROUNDS = 5

/**
 * Open the authority in `dir`, making what is absent (0600). Replicas that start at once agree on its roots.
 * @throws Error naming the file and what to do, when they are unreadable, do not belong together, or have ended.
 */
export async function loadAuthority(dir: string, clock: Clock, terms: AuthorityTerms): Promise<CertificateAuthority> {
  const leafKey = createLeafKey()
  let stored = await settle(dir, clock, terms)
  let own = await renewOwn([], stored, terms, clock)
  const hosts = terms.served ?? terms.hosts ?? []
  let generation = 0
  let trouble = stored.trouble // these four are written only here and by `refresh`

  return {
    get caPem() {
      return pemOf(succession(stored.roots, clock.nowMs()), succession(own, clock.nowMs()))
    },
    get generation() {
      return generation
    },
    get trouble() {
      return trouble
    },
    serves: (host) => servesHost({ hosts }, host),
    issueLeaf(host) {
      const nowMs = clock.nowMs()
      const issuer = succession(stored.roots, nowMs).signerOf(host) ?? succession(own, nowMs).signerOf(host)
      if (issuer === undefined) throw new Error(`no root of the gateway may sign for ${host}`)
      const notAfterMs = Math.min(nowMs - BACKDATE_MS + LEAF_LIFE_MS, issuer.untilMs, issuer.root.endsAtMs)
      const notBeforeMs = Math.max(nowMs - BACKDATE_MS, issuer.root.certificate.validFromDate.getTime())
      const leaf = leafKey.certify({ issuer: issuer.root, host, notBeforeMs, notAfterMs })
      return { key: leafKey.pem, cert: leaf + issuer.root.chain, renewAtMs: nowMs + ((notAfterMs - nowMs) * 3) / 4 }
    },
    async refresh() {
      try {
        const next = await settle(dir, clock, terms, stored)
        own = await renewOwn(own, next, terms, clock)
        if (stored.roots.some((root) => !next.roots.some(({ chain }) => chain === root.chain))) generation += 1
        stored = next
        trouble = next.trouble
      } catch (cause) {
        trouble = `${(cause as Error).message} Until then the roots that were read before stay in use.`
      }
    },
  }
}

interface Stored {
  readonly files: RootFiles
  /** Oldest first. */
  readonly roots: readonly Root[]
  readonly trouble: string | undefined
}

/** Read the roots, add what is due, take away what has ended, and let `ca.pem` say so. Each step alone leaves a usable state. */
async function settle(dir: string, clock: Clock, terms: AuthorityTerms, before?: Stored): Promise<Stored> {
  if (before === undefined) await makePrivate(dir)
  let trouble: string | undefined
  for (let round = 0; ; round++) {
    const { files, roots } = await readStored(dir, before)
    const nowMs = clock.nowMs()
    const line = succession(roots, nowMs)
    try {
      if (line.isDue(terms.hosts) && round < MAX_ROUNDS) {
        await addRoot(dir, (roots.at(-1)?.number ?? -1) + 1, await makePersisted(terms, nowMs))
        continue
      }
      for (const root of line.ended) if (line.living.length > 0) await removeRoot(dir, root)
      await publish(
        dir,
        line.living.map(({ root }) => root),
        files.published,
      )
    } catch (cause) {
      trouble = unwritable(dir, cause as NodeJS.ErrnoException)
    }
    if (line.living.length === 0) throw new Error(trouble ?? ended(dir, roots))
    return { files, roots, trouble: trouble ?? endingOf(dir, roots, nowMs) }
  }
}

function makePersisted({ hosts, days }: AuthorityTerms, nowMs: number): Promise<string> {
  return makeRoot({ hosts, lifeMs: days * DAY_MS, nowMs, title: 'Keyless CA' })
}

/** Twice if need be: what was read may have been in the middle of a change by another process. */
async function readStored(dir: string, before: Stored | undefined): Promise<Pick<Stored, 'files' | 'roots'>> {
  const read = async () => {
    const files = await readFiles(dir)
    const isSame = before !== undefined && isEqual(files, before.files)
    return { files, roots: isSame ? before.roots : rootsIn(dir, files) }
  }
  return read().catch(read)
}

function isEqual(a: RootFiles, b: RootFiles): boolean {
  return (
    a.published === b.published &&
    a.keys.size === b.keys.size &&
    [...a.keys].every(([n, text]) => b.keys.get(n) === text)
  )
}

/** Roots of this process alone, for hosts that those on disk must not sign for. They follow the same rules of succession. */
async function renewOwn(
  own: readonly Root[],
  stored: Stored,
  { days }: AuthorityTerms,
  clock: Clock,
): Promise<readonly Root[]> {
  const nowMs = clock.nowMs()
  const newest = stored.roots.at(-1)
  const line = succession(own, nowMs)
  if (newest?.constraints === undefined || !line.isDue(undefined)) return own
  const number = (own.at(-1)?.number ?? -1) + 1
  const pair = await makeRoot({ hosts: undefined, lifeMs: days * DAY_MS, nowMs, title: 'Keyless session CA' })
  return [...line.living.map(({ root }) => root), readRoot(pair, number, [])]
}

function pemOf(stored: Succession, own: Succession): string {
  return [...stored.living, ...own.living].map(({ root }) => root.anchors).join('')
}

function unwritable(dir: string, { code, message }: NodeJS.ErrnoException): string {
  return (
    `The CA in ${dir} needs a new root or a new ca.pem, and neither can be written there (${code ?? message}). ` +
    `Run "keyless keys --dir ${dir} --config FILE" where it can be, with the settings of this gateway.`
  )
}

/** An operator's own authority is theirs to renew: say so in time, a month before its end or a sixth of its life. */
function endingOf(dir: string, roots: readonly Root[], nowMs: number): string | undefined {
  const newest = roots.at(-1)
  if (!newest?.isOperators || newest.endsAtMs - nowMs > Math.min(30 * DAY_MS, (newest.endsAtMs - newest.madeAtMs) / 6))
    return undefined
  return `The CA in ${dir} ends on ${newest.certificate.validTo}. Replace ca.key and ca.pem; agents need the new ca.pem.`
}

function ended(dir: string, roots: readonly Root[]): string {
  const end = roots.at(-1)?.certificate.validTo
  return `The authority in ${dir} ends on ${end}. Replace ca.key and ca.pem, or remove both to have a new authority made; agents need the new ca.pem.`
}
