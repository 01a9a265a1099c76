/** `keyless grant verify`: an exported grant, checked from public keys alone. The checking is loaded when it is asked for. */
import { Command } from 'commander'

interface VerifyOptions {
  readonly jwks?: string
}

export function grantVerifyCommand(): Command {
  return new Command('verify')
    .description('check an exported grant, its attestations and all grants above it, from public keys alone')
    .argument('<file>', 'what `keyless grant show --bundle` wrote; - reads it from standard input')
    .option(
      '--jwks <file or URL>',
      'public keys of the gateway: a saved key set, or …/.well-known/jwks.json (default: of the gateway on this machine)',
    )
    .addHelpText('after', '\nExit status: 0 it verifies, 1 it does not, 2 it cannot be checked.')
    .action(async (file: string, { jwks }: VerifyOptions) => {
      const { verify } = await import('./verifying.ts')
      process.exitCode = await verify(file, jwks)
    })
}
