/** The `keyless` command: one table of its subcommands. Each lives in its own file under `cli/` and loads what it needs when it runs. */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command } from 'commander'
import { accessCommand } from './cli/access.ts'
import { approvalsCommand } from './cli/approvals.ts'
import { breakGlassCommand } from './cli/break-glass.ts'
import { caCommand } from './cli/ca.ts'
import { canaryCommand } from './cli/canary.ts'
import { connectCommand, disconnectCommand } from './cli/connect.ts'
import { doctorCommand } from './cli/doctor/doctor.ts'
import { grantCommand } from './cli/grant/grant.ts'
import { initCommand } from './cli/init.ts'
import { keysCommand } from './cli/keys.ts'
import { leaseCommand } from './cli/lease.ts'
import type { WhichGateway } from './cli/log/find-socket.ts'
import { logCommand } from './cli/log/log.ts'
import { policyCommand } from './cli/policy/policy.ts'
import { reportCommand } from './cli/report.ts'
import { revokeCommand } from './cli/revoke.ts'
import { runCommand } from './cli/run/run.ts'
import { scanCommand } from './cli/scan/scan.ts'
import { secretCommand } from './cli/secret.ts'
import { serviceCommand } from './cli/service/service.ts'
import { startCommand } from './cli/start.ts'
import { taskCommand } from './cli/task.ts'
import { warmCommand } from './cli/warm.ts'
import { webhooksCommand } from './cli/webhooks.ts'
import { witnessCommand } from './cli/witness.ts'
import { systemClock } from './protocol/clock.ts'
import type { Settings } from './settings.ts'
import { VERSION } from './version.ts'

// The launcher's word to this runtime alone (bin/keyless.mjs): no command that is started here may keep its code beside ours.
if (
  process.env.NODE_COMPILE_CACHE === fileURLToPath(new URL('../node_modules/.cache/keyless-compiled', import.meta.url))
)
  delete process.env.NODE_COMPILE_CACHE

const program = new Command('keyless')
  .description('A credential gateway for AI agents: access without exposure.')
  .version(VERSION)
  .enablePositionalOptions()

program.addCommand(startCommand(async (settings) => (await import('./main.ts')).openGateway(settings)))
program.addCommand(runCommand())
program.addCommand(taskCommand())
program.addCommand(grantCommand())
program.addCommand(leaseCommand())
program.addCommand(approvalsCommand())
program.addCommand(accessCommand())
program.addCommand(revokeCommand())
program.addCommand(breakGlassCommand())
program.addCommand(scanCommand())
program.addCommand(canaryCommand())
program.addCommand(warmCommand())
program.addCommand(
  logCommand(async (which, human) => {
    const { forgetHuman } = await import('./house/audit.ts')
    return forgetHuman(await settingsAt(which), human)
  }),
)
program.addCommand(
  secretCommand(async (which, work) => {
    const { withSecretWork } = await import('./house/secrets.ts')
    return withSecretWork(await settingsAt(which), (secrets, by) =>
      work({
        secrets: () => secrets.list(),
        setSecret: (name, value) => secrets.set(name, value, by),
        rotateSecret: (name, value) => secrets.rotate(name, value, by),
        removeSecret: (name) => secrets.remove(name, by),
        reseal: () => secrets.reseal(by),
      }),
    )
  }),
)
program.addCommand(connectCommand())
program.addCommand(disconnectCommand())
program.addCommand(webhooksCommand())
program.addCommand(witnessCommand())
program.addCommand(reportCommand())
program.addCommand(policyCommand())
program.addCommand(serviceCommand())
program.addCommand(doctorCommand())
program.addCommand(initCommand())
program.addCommand(
  keysCommand({
    async make(dir, config) {
      const { makeKeys } = await import('./settings/keys.ts')
      await makeKeys(dir)
      const isKnown = config !== undefined || existsSync('keyless.yaml')
      if (isKnown) await makeAuthority(dir, config)
      return isKnown
    },
    async rotate(dir) {
      const { rotateAssertionKeys, rotateGrantKey } = await import('./settings/keys.ts')
      const nowS = Math.floor(systemClock.nowMs() / 1000)
      const isOurs = await rotateGrantKey(dir, nowS)
      if (isOurs) await rotateAssertionKeys(dir, nowS)
      return isOurs
    },
  }),
)

program.addCommand(
  caCommand({
    async view(dir) {
      const { viewRoots } = await import('./ingress/rotation.ts')
      return viewRoots(dir, systemClock.nowMs())
    },
    async rotate(dir, isNow) {
      const { rotateRoot } = await import('./ingress/rotation.ts')
      await rotateRoot(dir, systemClock.nowMs(), isNow)
    },
    async clients(dir, isRotated) {
      const { rotateClientRoots, viewClientRoots } = await import('./settings/keys-client-ca.ts')
      if (isRotated) await rotateClientRoots(dir, systemClock.nowMs())
      return viewClientRoots(dir, systemClock.nowMs())
    },
  }),
)

pointAtHelp(program, 'keyless')

/** Settings of a gateway that does not run, for work on its data directory. */
async function settingsAt({ data, config }: WhichGateway): Promise<Settings> {
  const { loadSettings } = await import('./settings.ts')
  const settings = await loadSettings(config)
  if (data === undefined) return settings
  const dataDir = resolve(data)
  return { ...settings, dataDir, keysDir: join(dataDir, 'keys') }
}

/** Whoever mistypes a command or an option is told where the right ones are. */
function pointAtHelp(command: Command, path: string): void {
  command.showHelpAfterError(`(${path} --help lists what there is)`)
  for (const sub of command.commands) pointAtHelp(sub, `${path} ${sub.name()}`)
}

/** The CA in `dir` as a gateway with these settings wants it. */
async function makeAuthority(dir: string, config: string | undefined): Promise<void> {
  const [{ authorityTerms, loadAuthority }, { loadCatalogue }, { loadSettings }] = await Promise.all([
    import('./ingress/certificate.ts'),
    import('./policy/catalogue/catalogue.ts'),
    import('./settings.ts'),
  ])
  const { ca, services, shippedServicesDir: shippedDir, baseDir } = await loadSettings(config)
  const catalogue = await loadCatalogue({ services, shippedDir, baseDir })
  const authority = await loadAuthority(dir, systemClock, authorityTerms(ca, catalogue.services))
  if (authority.trouble !== undefined) throw new Error(authority.trouble)
}

try {
  await program.parseAsync()
} catch (cause) {
  process.stderr.write(`keyless: ${cause instanceof Error ? cause.message : String(cause)}\n`)
  process.exitCode = 1
}

// Every command is over when its action is. Leaving by the empty event loop instead lets Node clean up its handles one by one,
// which has been seen to spin for ever on a socket that was being closed.
process.exit()
