/** A whole gateway in this process, on ports of its own, in a data directory of its own. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import { verifyLog } from '../../gateway/audit/verify/verify.ts'
import { type ControlClient, controlClient } from '../../gateway/cli/control-client.ts'
import { excessOf } from '../../gateway/grant/attenuate/attenuate.ts'
import { type Gateway, openGateway } from '../../gateway/main.ts'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { loadSettings, type Settings } from '../../gateway/settings.ts'

export interface TestGateway {
  readonly gateway: Gateway
  readonly settings: Settings
  readonly dir: string
  readonly proxyPort: number
  readonly control: ControlClient
  openTask(scope: string, purpose?: string): Promise<OpenedTask>
  /** Every entry of the log, parsed, after the whole log has been verified. */
  checkLog(): Promise<void>
  stop(): Promise<void>
}

/** `yaml` is what a user would write, without `data_dir` and `listen`. */
export async function startGateway(
  yaml: string,
  reuse?: { readonly dir?: string; readonly controlPort?: number },
): Promise<TestGateway> {
  const dir = reuse?.dir ?? (await mkdtemp(join(tmpdir(), 'keyless-')))
  const file = join(dir, 'keyless.yaml')
  await writeFile(
    file,
    `data_dir: ${dir}/data\nlisten: { proxy: "127.0.0.1:0", control: "127.0.0.1:${reuse?.controlPort ?? 0}" }\n${yaml}`,
  )
  const settings = await loadSettings(file)
  const gateway = await openGateway(settings)
  const control = controlClient(settings.listen.controlSocket)
  const auditDir = join(settings.dataDir, 'audit')
  const checkLog = async () => {
    const verdict = await verifyLog(auditDir, {
      excess: (parent, child) => excessOf(parent, child).map(({ at }) => at),
    })
    expect(verdict, JSON.stringify(verdict)).toMatchObject({ ok: true })
  }
  return {
    gateway,
    settings,
    dir,
    proxyPort: Number(new URL(gateway.proxy).port),
    control,
    openTask: (scope, purpose = 'test the gateway') => control.openTask({ scope, purpose }),
    checkLog,
    async stop() {
      await gateway.stop()
      await checkLog()
      if (!reuse?.dir) await rm(dir, { recursive: true, force: true })
    },
  }
}
