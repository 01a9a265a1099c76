/**
 * Four agents, each with less than the one before: research → search → extract → call. Run it beside `npm start`:
 *
 *   npm run example:four-hops
 *
 * Every agent holds a grant of its own and asks the gateway's token endpoint for the next one (RFC 8693). The last one makes
 * a governed call; then one of them asks for more than it has, and is refused.
 */
import { request as plainRequest } from 'node:http'
import { controlClient } from '../gateway/cli/control-client.ts'
import { findSocket } from '../gateway/cli/log/find-socket.ts'

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'
const agent = (name: string) => `spiffe://keyless.local/agent/${name}`

interface Told {
  readonly lineage: string
  readonly authorization_details: readonly object[]
}

interface Issued extends Told {
  readonly access_token: string
  readonly handle: string
}

const control = controlClient(await findSocket({}))
const status = await control.status()
const api = status.services.find(({ name }) => name === 'demo')
if (!api) fail('This example needs the demo: start it with `npm start` in a directory without a keyless.yaml.')
const origin = `https://${api.hosts[0]}:${api.ports[0]}`

say('1  A human gives the first agent a task, and a part of the API for it.')
const research = await control.openTask({
  agent: agent('research'),
  purpose: 'find out what the notes say',
  scope: 'demo:notes.* demo:files.read',
})
tell(research)

say('2  It delegates. Each agent presents its own grant and gets one for the next, with less in it.')
const search = await delegate(research.token, 'search', { scope: 'demo:notes.list demo:notes.read' })
const extract = await delegate(search.access_token, 'extract', { scope: 'demo:notes.read' })
const call = await delegate(extract.access_token, 'call', {
  authorization_details: JSON.stringify([
    { type: 'keyless_access', operations: ['demo:notes.read'], paths: ['/notes/1'], constraints: { max_calls: 2 } },
  ]),
})

say('3  The fourth agent calls the API through the proxy. It has no key, and its own grant covers this note alone.')
for (const path of ['/notes/1', '/notes/2']) report(path, await get(path, call.handle))

say('4  What nobody above may do, nobody below can be given: the wider request is refused.')
const refused = await exchange(extract.access_token, 'call', { scope: 'demo:notes.read demo:notes.create' })
process.stdout.write(`   ${refused.status} ${JSON.stringify(refused.body, undefined, 1).replaceAll('\n', '\n   ')}\n`)
if (refused.status !== 400) fail('The wider request was not refused.')

say('5  The human ends the task, and with it everything that was derived from it.')
await control.completeTask(research.task, 'completed')
report('/notes/1', await get('/notes/1', call.handle))

say('Who stood behind it, from the log:  npx keyless log lineage')
process.exit()

async function delegate(token: string, to: string, what: Record<string, string>): Promise<Issued> {
  const { status, body } = await exchange(token, to, what)
  if (status !== 200) fail(`The gateway refused to delegate to ${to}: ${JSON.stringify(body)}`)
  const issued = body as Issued
  tell(issued)
  return issued
}

async function exchange(token: string, to: string, what: Record<string, string>) {
  const answer = await fetch(`${status.control}/oauth/token`, {
    method: 'POST',
    body: new URLSearchParams({
      grant_type: EXCHANGE,
      subject_token: token,
      subject_token_type: ACCESS_TOKEN,
      requested_actor: agent(to),
      ...what,
    }),
  })
  return { status: answer.status, body: (await answer.json()) as unknown }
}

/** As any client without a key would: a plain request to the proxy, in absolute form. */
function get(path: string, handle: string): Promise<{ status: number; text: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; text: string }>()
  const proxy = new URL(status.proxy)
  const basic = Buffer.from(`agent:${handle}`).toString('base64')
  const sent = plainRequest({
    host: proxy.hostname,
    port: proxy.port,
    path: `${origin}${path}`,
    headers: { host: new URL(origin).host, 'proxy-authorization': `Basic ${basic}` },
  })
  sent.on('error', reject)
  sent.on('response', async (answer) => {
    let text = ''
    for await (const chunk of answer) text += String(chunk)
    resolve({ status: answer.statusCode ?? 0, text })
  })
  sent.end()
  return promise
}

function report(path: string, { status, text }: { status: number; text: string }): void {
  const { code, detail } = status === 200 ? {} : (JSON.parse(text) as { code?: string; detail?: string })
  process.stdout.write(`   GET ${path} → ${status} ${code === undefined ? text : `${code}: ${detail}`}\n`)
}

function say(text: string): void {
  process.stdout.write(`\n${text}\n`)
}

/** Of the chain only what is new, and what is granted. */
function tell({ lineage, authorization_details: details }: Told): void {
  const granted = details.map((entry) => JSON.stringify({ ...entry, type: undefined }))
  process.stdout.write(`   ${lineage.split('; ').at(-1)}\n     ${granted.join(' ')}\n`)
}

function fail(text: string): never {
  process.stderr.write(`${text}\n`)
  process.exit(1)
}
