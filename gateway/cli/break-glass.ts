/**
 * `keyless break-glass`: emergency access. Keys, requests and signatures are made without any gateway; what is signed by enough
 * custodians is opened at one, through its socket.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { Command } from 'commander'
import type { BreakGlassRequest, BreakGlassView, OpenedBreakGlass, SealedRequest } from '../protocol/break-glass.ts'
import { GatewayError } from '../protocol/problem.ts'
import { atGateway, EXIT, onGateway, parseTtl, refused, timeOf } from './at-gateway.ts'
import type { WhichGateway } from './log/find-socket.ts'
import { printable, printableJson } from './log/words.ts'
import { counted } from './table.ts'

/** Seconds for which a request can be opened, when nothing else is said. */
const WINDOW_S = 1800

interface RequestOptions {
  readonly who: string
  readonly why: string
  readonly agent: string
  readonly scope: string
  readonly ttl: number
  readonly within: number
  readonly at?: readonly string[]
  readonly tenant: string
  readonly out: string
}

/** @param nowMs milliseconds since the Unix epoch. */
export function breakGlassCommand(nowMs: () => number = Date.now): Command {
  return new Command('break-glass')
    .description('emergency access that several custodians sign, while what is shared is down')
    .addCommand(keygenCommand())
    .addCommand(requestCommand(nowMs))
    .addCommand(signCommand())
    .addCommand(showCommand())
    .addCommand(openCommand())
    .addCommand(statusCommand())
    .addCommand(closeCommand())
}

function keygenCommand(): Command {
  return new Command('keygen')
    .description('make the key of a custodian; the passphrase is asked for, or read from standard input')
    .argument('<name>', 'who keeps it, such as ana@acme.test')
    .requiredOption('--out <file>', 'where the private half goes, encrypted')
    .action((name: string, { out }: { readonly out: string }) =>
      saying(async () => {
        const [{ makeCustodianKey }, { readHidden }] = await Promise.all([
          import('./break-glass-key.ts'),
          import('./run/hidden.ts'),
        ])
        const passphrase = await readHidden(`Passphrase for ${out}: `)
        if (process.stdin.isTTY && passphrase !== (await readHidden('The same again: ')))
          throw new Error('The two are not the same. No key was made.')
        const key = await makeCustodianKey(out, passphrase)
        return `Keep ${out} where only you can get at it. For break_glass.custodians in the settings:\n  - { name: ${JSON.stringify(name)}, key: ${key} }`
      }),
    )
}

function requestCommand(nowMs: () => number): Command {
  return new Command('request')
    .description('write down what is needed, for custodians to sign; asks no gateway')
    .requiredOption('--who <name>', 'who asks, such as ana@acme.test')
    .requiredOption('--why <text>', 'what has happened, in one line')
    .requiredOption('--agent <id>', 'registered agent that gets the access')
    .requiredOption('--scope <operations>', 'what it may do, separated by spaces; within break_glass.scope')
    .option('--ttl <time>', 'how long it lives once opened: 30s to 15m', parseTtl, 900)
    .option('--within <time>', 'for how long it can be opened: up to 1h', parseTtl, WINDOW_S)
    .option('--at <host>', 'open it at this gateway only; repeat for several (default: at any)', gather)
    .option('--tenant <name>', 'tenant of the gateway', 'default')
    .requiredOption('--out <file>', 'where the request goes')
    .action((o: RequestOptions) =>
      saying(async () => {
        const [{ draftSealed }, { uuidv7 }] = await Promise.all([
          import('../grant/break-glass-request.ts'),
          import('../protocol/id.ts'),
        ])
        const from = Math.floor(nowMs() / 1000)
        const request: BreakGlassRequest = {
          ...{ id: uuidv7(nowMs()), tenant: o.tenant, ...(o.at && { at: o.at }) },
          ...{ who: o.who, agent: o.agent, why: o.why, scope: o.scope, ttl_s: o.ttl },
          ...{ not_before: from, not_after: from + o.within },
        }
        await write(o.out, draftSealed(request), 'wx')
        return `${inWords(request)}\nHave it signed: keyless break-glass sign ${o.out} --key FILE`
      }),
    )
}

function gather(host: string, before: readonly string[] = []): readonly string[] {
  return [...before, host]
}

function signCommand(): Command {
  return new Command('sign')
    .description('read what is asked for, and agree to it with your passphrase; asks no gateway')
    .argument('<file>', 'the request')
    .requiredOption('--key <file>', 'your key')
    .action((file: string, { key }: { readonly key: string }) =>
      saying(async () => {
        const [{ signSealed }, { openCustodianKey }, { readHidden }] = await Promise.all([
          import('../grant/break-glass-request.ts'),
          import('./break-glass-key.ts'),
          import('./run/hidden.ts'),
        ])
        const { sealed, request } = await read(file)
        process.stderr.write(`${inWords(request)}\n`)
        const passphrase = await readHidden('Your passphrase, to agree to exactly this: ')
        const signed = signSealed(sealed, await openCustodianKey(key, passphrase))
        await write(file, signed, 'w')
        const { length } = signed.signatures
        const next =
          length === 1
            ? `Another custodian has to sign as well: keyless break-glass sign ${file} --key FILE`
            : `Open it: keyless break-glass open ${file}`
        return `Signed; the file has ${counted(length, 'signature')}. ${next}`
      }),
    )
}

function showCommand(): Command {
  return new Command('show')
    .description('say what a request asks for; who signed it is looked at when it is opened')
    .argument('<file>', 'the request')
    .action((file: string) =>
      saying(async () => {
        const { sealed, request } = await read(file)
        return `${inWords(request)}\n${counted(sealed.signatures.length, 'signature')}, not checked here.`
      }),
    )
}

function openCommand(): Command {
  return onGateway(
    new Command('open')
      .description('open what custodians have signed at the running gateway; prints what the agent presents, once')
      .argument('<files...>', 'the request, or copies of it that were signed apart')
      .option('--json', 'as JSON'),
  ).action((files: string[], { json, ...which }: WhichGateway & { readonly json?: boolean }) =>
    atGateway(which, async (control) => {
      const { mergeSealed } = await import('../grant/break-glass-request.ts')
      const all = await Promise.all(files.map(read))
      const opened = await control.openBreakGlass(mergeSealed(all.map(({ sealed }) => sealed)))
      return json ? printableJson(opened, 2) : openedInWords(opened)
    }),
  )
}

function statusCommand(): Command {
  return onGateway(
    new Command('status')
      .description('what is open at the running gateway, and whether its journal can be written')
      .option('--json', 'as JSON'),
  ).action(({ json, ...which }: WhichGateway & { readonly json?: boolean }) =>
    atGateway(which, async (control) => {
      const status = await control.breakGlass()
      if (json) return printableJson(status, 2)
      const { open, journalled, journal_trouble: trouble } = status
      return [
        ...(open.length === 0 ? ['Nothing is open.'] : open.map(viewInWords)),
        trouble === null ? 'The journal can be written.' : `The journal cannot be written (${trouble}).`,
        ...(journalled > 0 ? [`${counted(journalled, 'entry', 'entries')} not in the log yet.`] : []),
      ].join('\n')
    }),
  )
}

function closeCommand(): Command {
  return onGateway(
    new Command('close')
      .description('end emergency access at the running gateway, at once')
      .argument('<id>', 'id of the grant or of the request'),
  ).action((id: string, which: WhichGateway) =>
    atGateway(which, async (control) => {
      await control.closeBreakGlass(id)
      return 'Closed. Calls under way were cut.'
    }),
  )
}

/** What needs no gateway: say the result, or why not. */
async function saying(work: () => Promise<string>): Promise<void> {
  try {
    process.stdout.write(`${await work()}\n`)
  } catch (cause) {
    if (cause instanceof GatewayError) process.exitCode = refused(cause)
    else {
      process.stderr.write(`keyless: ${(cause as Error).message}\n`)
      process.exitCode = EXIT.usage
    }
  }
}

async function read(file: string) {
  const [{ readSealed }, { parseStrictJson }] = await Promise.all([
    import('../grant/break-glass-request.ts'),
    import('../protocol/strict-json.ts'),
  ])
  const text = await readFile(file, 'utf8')
  let value: unknown
  try {
    value = parseStrictJson(text)
  } catch {
    throw new GatewayError(
      'instruction_invalid',
      `${file} is not JSON. Name what \`keyless break-glass request\` wrote.`,
    )
  }
  return readSealed(value)
}

function write(file: string, sealed: SealedRequest, flag: 'w' | 'wx'): Promise<void> {
  return writeFile(file, `${JSON.stringify(sealed, null, 2)}\n`, { mode: 0o600, flag })
}

/** Whoever signs agrees to what stands here: every member of the request. */
function inWords({ id, tenant, at, who, agent, why, scope, ttl_s: ttlS, ...times }: BreakGlassRequest): string {
  return [
    `Emergency access ${id}`,
    `  asked for by  ${printable(who)}`,
    `  because       ${printable(why)}`,
    `  agent         ${printable(agent)}`,
    `  may do        ${printable(scope)}`,
    `  for           ${ttlS} s once opened`,
    `  can be opened ${timeOf(times.not_before)} to ${timeOf(times.not_after)}`,
    `  at            ${at === undefined ? 'any gateway' : printable(at.join(', '))} of the tenant ${printable(tenant)}, once at each`,
  ].join('\n')
}

function openedInWords(opened: OpenedBreakGlass): string {
  return [
    viewInWords(opened),
    `The agent presents: ${opened.handle}`,
    ...(opened.logged
      ? []
      : ['The log cannot be written: this is in the journal, and goes into the log when it can be.']),
    `End it as soon as it is not needed: keyless break-glass close ${opened.id}`,
  ].join('\n')
}

function viewInWords(view: BreakGlassView): string {
  return [
    `OPEN ${view.id} until ${timeOf(view.expires_at)}, ${counted(view.uses, 'call')}`,
    `  ${printable(view.agent)} for ${printable(view.who)}: ${printable(view.why)}`,
    `  ${printable(view.scope.join(' '))}`,
    `  signed by ${printable(view.custodians.join(', '))}`,
  ].join('\n')
}
