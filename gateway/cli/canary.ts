/** `keyless canary`: bait for thieves of credentials. Made here and shown once; the gateway is told its digest by the settings. */
import { Command, Option } from 'commander'
import { type CanaryLook, canaryDigest, LOOKS } from '../protocol/canary.ts'

const NAME = /^[a-z0-9][a-z0-9_-]{0,62}$/

export function canaryCommand(): Command {
  return new Command('canary').description('bait that nothing legitimate uses: whoever does is told of').addCommand(
    new Command('add')
      .description('make a canary: print it once, and the row for the settings that knows it again')
      .argument('<name>', 'how alerts call it, as build-log or agent-memory')
      .addOption(new Option('--look <look>', 'what it looks like').choices(Object.keys(LOOKS)).default('generic'))
      .option('--json', 'as JSON')
      .action((name: string, { look, json }: { look: CanaryLook; json?: true }, command: Command) => {
        if (!NAME.test(name))
          command.error(
            `error: the name is ${JSON.stringify(name.slice(0, 80))}; allowed are 1 to 63 lower-case letters, digits, - and _`,
          )
        const canary = LOOKS[look].make()
        const sha256 = canaryDigest(canary)
        process.stdout.write(json ? `${JSON.stringify({ name, look, canary, sha256 })}\n` : told(name, look, canary))
      }),
  )
}

function told(name: string, look: CanaryLook, canary: string): string {
  return `${canary}

Put it where a thief would look and nobody else would use it. It is not shown again.
Then let every gateway know it, in keyless.yaml, and start them again:

leaks:
  canaries:
    ${name}: { look: ${look}, sha256: ${canaryDigest(canary)} }
`
}
