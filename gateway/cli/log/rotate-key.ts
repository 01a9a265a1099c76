/** `keyless log rotate-key`: a new signing key for a log that no gateway writes at the moment. */
import { Command } from 'commander'
import { findAuditDir, type WhichLog } from './find-audit.ts'
import { complain, print } from './print.ts'

export function rotateKeyCommand(): Command {
  return new Command('rotate-key')
    .description('give the log a new signing key (gateway stopped); whoever holds the old log.pub can follow')
    .action((options: WhichLog) => rotate(options))
}

async function rotate(which: WhichLog): Promise<void> {
  const [{ rotateKey }, { systemClock }] = await Promise.all([
    import('../../audit/key-rotation.ts'),
    import('../../protocol/clock.ts'),
  ])
  const dir = await findAuditDir(which)
  try {
    const { key, size, file } = await rotateKey(dir, systemClock)
    await print(
      [
        `The old key has signed its last checkpoint, of ${size} entries. From now on this one signs (log.pub):`,
        key,
        `Give it to your witnesses and auditors. Who holds the old log.pub can follow by ${file}; keep that file.`,
      ].join('\n'),
    )
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException
    complain(
      code === 'ENOENT'
        ? `there is no log in ${dir}. Name its directory with --audit-dir, or the data directory with --data.`
        : message,
    )
  }
}
