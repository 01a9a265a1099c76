/**
 * Node's clients as libraries use them. `node-clients.mjs NAME,NAME URL…` asks each URL with each of them, the name as its path, and
 * prints what was answered, or the error, as JSON: `{ "NAME URL": text }`.
 */
import { execFileSync } from 'node:child_process'
import http, { get as httpGet } from 'node:http'
import https, { get as httpsGet } from 'node:https'
import { createRequire } from 'node:module'
import { Worker } from 'node:worker_threads'

const getting = (get, url, options) =>
  new Promise((resolve, reject) => {
    const sent = get(url, options, (answer) => {
      let text = ''
      answer.setEncoding('utf8').on('data', (chunk) => {
        text += chunk
      })
      answer.on('end', () => resolve(text))
    })
    sent.on('error', reject)
  })

const libraryOf = (url) => (/^(?:https|wss):/.test(url) ? https : http)
const ownAgent = (url) => `const l = require('${/^https:/.test(url) ? 'https' : 'http'}')
l.get('${url}', { agent: new l.Agent() }, (a) => { let t = ''; a.on('data', (c) => { t += c }); a.on('end', () => process.stdout.write(t)) })`

const clients = {
  fetch: async (url) => (await fetch(url)).text(),
  global: (url) => getting(libraryOf(url).get, url, {}),
  import: (url) => getting(/^https:/.test(url) ? httpsGet : httpGet, url, {}),
  agent: (url) => getting(libraryOf(url).get, url, { agent: new (libraryOf(url).Agent)({ keepAlive: true }) }),
  none: (url) => getting(libraryOf(url).get, url, { agent: false }),
  /** As agentkeepalive and others do it. */
  subclass(url) {
    class OwnAgent extends libraryOf(url).Agent {
      createConnection(options, made) {
        return super.createConnection(options, made)
      }
    }
    return getting(libraryOf(url).get, url, { agent: new OwnAgent({ keepAlive: true }) })
  },
  child: async (url) => execFileSync(process.execPath, ['-e', ownAgent(url)]).toString(),
  async worker(url) {
    await new Promise((resolve) => new Worker(ownAgent(url), { eval: true, stdout: true }).on('exit', resolve))
    return ''
  },
  async ws(url) {
    const { WebSocket } = createRequire(import.meta.url)('ws')
    const opened = new WebSocket(url.replace(/^http/, 'ws'))
    return new Promise((resolve) => opened.on('error', (refused) => resolve(refused.message)))
  },
}

const [names, ...urls] = process.argv.slice(2)
const said = {}
for (const name of names.split(',')) {
  for (const url of urls) {
    said[`${name} ${url}`] = await clients[name](`${url}/${name}`).catch(
      (cause) => `${cause.message} ${cause.cause?.message ?? ''}`,
    )
  }
}
process.stdout.write(JSON.stringify(said))
setTimeout(() => process.exit(), 500).unref() // agents of their own keep connections, and with them the process
