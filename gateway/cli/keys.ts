/** `keyless keys`: make the keys that replicas behind one address share, before the first of them starts. */
import { resolve } from 'node:path'
import { Command } from 'commander'

/** @param makeKeys reads the keys in a directory and makes those that are absent. */
export function keysCommand(makeKeys: (dir: string) => Promise<void>): Command {
  return new Command('keys')
    .description('make the CA, the grant key and the lease key that replicas share (setting keys_dir)')
    .requiredOption('--dir <directory>', 'where to put them; existing keys are kept')
    .action(async ({ dir }: { dir: string }) => {
      const target = resolve(dir)
      await makeKeys(target)
      process.stdout.write(`Keys are in ${target}. Set keys_dir to it on every replica, and let nobody else read it.\n`)
    })
}
