/**
 * `npm run bench:leases`: what a credential costs when it is issued, when the gateway signs it, and when it is there already; how often
 * it is there; and how an issuer is asked when many end at once. About a minute. Writes bench/LEASES.md. Needs redis-server.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ROOT } from '../test/rig/process.ts'
import { cacheTable } from './lease-cache.ts'
import { issuerTable } from './lease-issuers.ts'
import { MIX, mixTable, STORM, stormTable } from './lease-life.ts'
import { signingTable } from './lease-signing.ts'
import { machine } from './report.ts'
import { load } from './timing.ts'

const dir = await mkdtemp(join(tmpdir(), 'keyless-bench-'))
try {
  const loads = [load()]
  const measured: string[] = []
  for (const table of [cacheTable, signingTable, issuerTable]) {
    measured.push(...(await table(dir)), '')
    loads.push(load())
  }
  const text = [
    '# Leases, measured',
    '',
    'Written by `npm run bench:leases`; do not edit.',
    '',
    ...(await machine()).slice(0, 2),
    `- Node ${process.versions.node}; load average of the machine before, between and after the tables: ${loads.join(', ')}`,
    '',
    ...measured,
    'Issued: a lease for a task that has none; the authorization server is `oidc-provider` with signed access tokens, in a',
    'process of its own on the same machine, and its work is in the times. The lease room has its log and its list of credentials to revoke on',
    'disk. CPU is that of all threads of the process that asks, user and system. Signed: the provider alone.',
    '',
    '## How often it is there',
    '',
    ...(await mixTable()),
    '',
    `${MIX.agents} agents, each always with a task of ${MIX.taskS.map((s) => s / 60).join(' to ')} minutes, call one of eight services every ${1 / MIX.callsPerS} s on average, the n-th`,
    `1/n as often as the first, through either of ${MIX.replicas} replicas by chance; credentials live 5, 10, 15 or 60 minutes and are for one task and one`,
    'service. The clock is wound by hand; the mix is the same in every run. Every task asks anew for every service it uses: that bounds the ratio.',
    '',
    '## When many end at once',
    '',
    ...(await stormTable()),
    '',
    `Credentials of ${STORM.lifeS / 60} minutes, an issuer that answers after ${STORM.answerMs} ms; the first line is arithmetic.`,
    '',
  ].join('\n')
  process.stdout.write(text)
  await writeFile(join(ROOT, 'bench', 'LEASES.md'), text)
} finally {
  await rm(dir, { recursive: true })
}
process.exit()
