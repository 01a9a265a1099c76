/** What the commands of `keyless log` say, and how they fail. */
import { once } from 'node:events'

export async function print(text: string): Promise<void> {
  if (!process.stdout.write(`${text}\n`)) await once(process.stdout, 'drain')
}

export function complain(text: string): void {
  process.stderr.write(`keyless: ${text}\n`)
  process.exitCode = 1
}
