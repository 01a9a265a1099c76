/** `keyless keys`: the keys that replicas behind one address share: made before the first of them starts, changed while they run. */
import { resolve } from 'node:path'
import { Command } from 'commander'

export interface KeyWork {
  /** Reads the keys in a directory and makes those that are absent. */
  make(dir: string): Promise<void>
  /** Puts a new key in the place of the one that signs grants. @returns false when another change happened at the same time. */
  rotate(dir: string): Promise<boolean>
}

export function keysCommand({ make, rotate }: KeyWork): Command {
  const makeCommand = new Command('make')
    .description('make the CA, the grant key, the store key and the lease key that replicas share (setting keys_dir)')
    .requiredOption('--dir <directory>', 'where to put them; existing keys are kept')
    .action(async ({ dir }: { dir: string }) => {
      const target = resolve(dir)
      await make(target)
      process.stdout.write(`Keys are in ${target}. Set keys_dir to it on every replica, and let nobody else read it.\n`)
    })
  const rotateCommand = new Command('rotate')
    .description('sign grants with a new key from now on; gateways that run take it up within a second')
    .requiredOption('--dir <directory>', 'the directory of the keys: <data_dir>/keys, or what keys_dir says')
    .action(async ({ dir }: { dir: string }) => {
      const target = resolve(dir)
      const isOurs = await rotate(target)
      process.stdout.write(
        `${isOurs ? 'Grants are signed with a new key' : 'Another change of the key happened at this moment, and stands'}. ` +
          'The key before verifies until the last grant under it has expired, and is of no use after that.\n',
      )
    })
  return new Command('keys')
    .description('keys that replicas share')
    .addCommand(makeCommand, { isDefault: true })
    .addCommand(rotateCommand)
}
