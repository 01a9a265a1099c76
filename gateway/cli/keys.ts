/** `keyless keys`: the keys that replicas behind one address share: made before the first of them starts, changed while they run. */
import { resolve } from 'node:path'
import { Command } from 'commander'

export interface KeyWork {
  /**
   * Reads the keys in a directory and makes those that are absent; the CA for the services of the settings.
   * @returns false when no settings were named or found, so that the CA was left alone.
   */
  make(dir: string, config: string | undefined): Promise<boolean>
  /** Puts new keys in the place of those that sign grants and assertions. @returns false when another change happened at the same time. */
  rotate(dir: string): Promise<boolean>
}

export function keysCommand({ make, rotate }: KeyWork): Command {
  const makeCommand = new Command('make')
    .description(
      'make the CA and the keys that replicas share: of grants, assertions, store and leases (setting keys_dir)',
    )
    .requiredOption('--dir <directory>', 'where to put them; existing keys are kept')
    .option(
      '-c, --config <file>',
      'settings of the replicas, whose services the CA may sign for (default: ./keyless.yaml)',
    )
    .action(async ({ dir, config }: { dir: string; config?: string }) => {
      const target = resolve(dir)
      const hasCa = await make(target, config)
      process.stdout.write(
        `Keys are in ${target}. Set keys_dir to it on every replica, and let nobody else read it.\n` +
          (hasCa ? '' : 'The CA was left to the first gateway that starts: --config makes it now.\n'),
      )
    })
  const rotateCommand = new Command('rotate')
    .description('sign grants with a new key from now on, and assertions an hour later; gateways that run take them up')
    .requiredOption('--dir <directory>', 'the directory of the keys: <data_dir>/keys, or what keys_dir says')
    .action(async ({ dir }: { dir: string }) => {
      const target = resolve(dir)
      const isOurs = await rotate(target)
      process.stdout.write(
        `${isOurs ? 'Grants are signed with a new key' : 'Another change of the key happened at this moment, and stands'}. ` +
          'The key before verifies until the last grant under it has expired, and is of no use after that. ' +
          'New keys of assertions are published at once and sign in an hour, when others have read them.\n',
      )
    })
  return new Command('keys')
    .description('keys that replicas share')
    .addCommand(makeCommand, { isDefault: true })
    .addCommand(rotateCommand)
}
