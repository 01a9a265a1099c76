/**
 * How fast a log is verified: writes one of ENTRIES entries as a gateway would have, and verifies it with every check.
 * `npm run bench:verify [ENTRIES] [THREADS]`; default 1,000,000 entries, as many threads as there are processors.
 */
import { createSecretKey, randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createAudit } from '../gateway/audit/audit.ts'
import { loadLogKey, openLog } from '../gateway/audit/log.ts'
import { verifyLog } from '../gateway/audit/verify/verify.ts'
import { excessOf } from '../gateway/grant/attenuate/attenuate.ts'
import { lineageHash } from '../gateway/grant/chain/lineage.ts'
import { systemClock } from '../gateway/protocol/clock.ts'
import type { Grant } from '../gateway/protocol/grant.ts'
import { uuidv7 } from '../gateway/protocol/id.ts'
import { decision, endpoint, grant, inbound, leaseFacts, outcome } from '../test/audit/log.fixture.ts'

const [entries = 1_000_000, threads = availableParallelism()] = process.argv.slice(2).map(Number)
const AT_ONCE = 512
/** Calls under one grant. */
const CALLS = 50
const nowS = Math.floor(Date.now() / 1000)

const dir = await mkdtemp(join(tmpdir(), 'keyless-bench-'))
try {
  await write()
  const startedMs = performance.now()
  const before = process.cpuUsage()
  const verdict = await verifyLog(dir, {
    threads,
    excess: (parent, child) => excessOf(parent, child).map(({ at }) => at),
  })
  const seconds = (performance.now() - startedMs) / 1000
  const { user, system } = process.cpuUsage(before)
  const { ok, calls, grants, leases } = verdict
  const peakMb = Math.round(process.resourceUsage().maxRSS / 1024)
  console.log(
    JSON.stringify({
      ok,
      entries: verdict.entries,
      calls,
      grants,
      leases,
      first: verdict.first_bad ?? verdict.warnings[0],
    }),
  )
  console.log(
    `${verdict.entries} entries in ${seconds.toFixed(1)} s with ${threads} threads: ${Math.round(verdict.entries / seconds)} entries/s, ${((user + system) / verdict.entries).toFixed(1)} µs of CPU an entry, at most ${peakMb} MB`,
  )
} finally {
  await rm(dir, { recursive: true, force: true })
}

async function write(): Promise<void> {
  const origin = 'keyless.test/bench'
  const key = await loadLogKey(dir, origin)
  const log = await openLog({
    dir,
    origin,
    key,
    durability: 'relaxed',
    clock: systemClock,
    segmentBytes: 2 ** 26,
    opened: { shared: false },
  })
  const hmacKey = createSecretKey(randomBytes(32))
  const audit = createAudit({ log, clock: systemClock, node: 'bench', version: '0', hmacKey })
  await audit.record('policy.loaded', 'default', {
    ...{ policies: 1, files: [], services: [] },
    policy_set: decision().policySet,
  })
  let left = Math.floor(entries / (2 * CALLS + 2))
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      while (left-- > 0) await one(audit)
    }),
  )
  await audit.close()
}

/** A grant, a lease of it, and its calls. */
async function one(audit: ReturnType<typeof createAudit>): Promise<void> {
  const made = living()
  const event = audit.openInstruction({ kind: 'task.open', id: uuidv7(), tenant: 'default' } as never)
  event.proposed({ kind: 'task.open', grant: made, authority: made.authority, agent: made.agent, ttlS: 900 } as never)
  event.decided(decision())
  await event.commit()
  const lease = leaseFacts({ credentialId: `hmac:${randomUUID()}`, expiresAt: made.expiresAt })
  const { credentialId: cred_id, expiresAt: expires, provider, credential, ephemeral } = lease
  const facts = { cred_id, expires, provider, credential, ephemeral, grant: made.id, service: 'github', ms: 12 }
  await audit.recordUnder('lease.issued', made, { ...facts, cause: 'needed' })
  for (let i = 0; i < CALLS; i++) {
    const call = audit.openCall(inbound())
    call.located(endpoint())
    call.authenticated(made)
    call.decided(decision())
    await call.commit()
    call.leased({ facts: lease })
    call.closed(outcome())
  }
}

function living(): Grant {
  const id = uuidv7()
  const lineage = [
    { n: 0, type: 'human', id: 'ana' },
    { n: 1, type: 'ai_agent', id: 'spiffe://acme.test/agents/triage', grant: id },
  ] as const
  return grant({ id, lineage, lineageHash: lineageHash(lineage), issuedAt: nowS, expiresAt: nowS + 3600 })
}
