'use strict'
/**
 * Loaded by every Node process under `keyless run` (NODE_OPTIONS): leads the clients that read no proxy variables to the
 * forwarder. Those are libraries with an http(s).Agent of their own, and everything on a Node that does not know
 * NODE_USE_ENV_PROXY. Plain CommonJS for old Nodes. Whatever fails in here, the program runs on as if this file were not there.
 *
 * It stands in `createConnection` of the stock agents' prototypes: subclasses that call it are led too, agents that connect by
 * themselves (HttpsProxyAgent) or by Node's own proxy support are left alone, so nothing is proxied twice.
 */
const MARK = Symbol.for('keyless.preload')
const DISPATCHER = Symbol.for('undici.globalDispatcher.1')
/** A refusal is some hundred bytes; this bounds what is read of anything else. */
const MAX_REFUSAL_BYTES = 64 * 1024
const CONNECT_TIMEOUT_MS = 30000

if (!process.versions.bun && !process.versions.deno && !globalThis[MARK]) {
  try {
    Object.defineProperty(globalThis, MARK, { value: true })
    install()
  } catch (cause) {
    tell(cause)
  }
}

function tell(cause) {
  if (process.env.KEYLESS_DEBUG) process.stderr.write(`keyless: the preload does not work here: ${cause.stack}\n`)
}

function install() {
  const http = require('node:http')
  const https = require('node:https')
  const connect = { http: http.Agent.prototype.createConnection, https: https.Agent.prototype.createConnection }
  for (const [scheme, { Agent }] of Object.entries({ http, https })) {
    const original = connect[scheme]
    Agent.prototype.createConnection = function createConnection(...args) {
      const [options, callback] = args
      const proxy = proxyOf()
      const isLed = this.options?.proxyEnv // by Node itself, its global agents among them
      if (isLed || !proxy || !isElsewhere(options) || typeof callback !== 'function') return original.apply(this, args)
      tunnel(proxy, options, (cause, socket) => {
        if (cause) return callback(cause)
        if (scheme === 'http') return callback(null, socket)
        let secured
        try {
          secured = original.call(this, Object.assign({}, options, { socket }))
        } catch (invalid) {
          socket.destroy()
          return callback(invalid)
        }
        callback(null, secured)
      })
      return undefined
    }
  }
  for (const library of [http, https]) dropOwnConnections(library)
  require('node:module').syncBuiltinESMExports()
  if (!isLedByNode()) leadFetch()

  /** CONNECT at the forwarder, over a connection that is not led anywhere itself. */
  function tunnel(proxy, { host, hostname, port }, done) {
    const name = String(host || hostname || 'localhost')
    const target = `${name.includes(':') ? `[${name}]` : name}:${port}`
    const headers = { host: target }
    if (proxy.username) {
      const userinfo = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`
      headers['proxy-authorization'] = `Basic ${Buffer.from(userinfo).toString('base64')}`
    }
    const asked = new http.ClientRequest({
      host: proxy.hostname.replace(/^\[|\]$/g, ''),
      port: proxy.port || 80,
      method: 'CONNECT',
      path: target,
      headers,
      createConnection: connect.http,
      timeout: CONNECT_TIMEOUT_MS,
    })
    asked.once('timeout', () => asked.destroy(failure('ETIMEDOUT', `the proxy did not answer CONNECT ${target}`)))
    asked.once('error', done)
    asked.once('connect', (answer, socket, head) => {
      asked.removeListener('error', done)
      socket.setTimeout(0)
      if (answer.statusCode >= 200 && answer.statusCode < 300) {
        if (head.length > 0) socket.unshift(head)
        return done(null, socket)
      }
      readRefusal(answer, socket, head, (said) =>
        done(failure('ERR_PROXY_TUNNEL', `${target} was refused by the proxy: ${said}`, answer.statusCode)),
      )
    })
    asked.end()
  }
}

function isLedByNode() {
  return process.env.NODE_USE_ENV_PROXY === '1' && process.allowedNodeEnvironmentFlags.has('--use-env-proxy')
}

/** At each call: a program may change its own variables, and then knows why. */
function proxyOf() {
  const url = process.env.HTTPS_PROXY || process.env.https_proxy
  try {
    return url?.startsWith('http://') ? new URL(url) : undefined
  } catch (_) {
    return undefined
  }
}

/** Loopback and unix sockets are this machine's own; what comes with a socket is connected already. */
function isElsewhere(options) {
  if (!options || typeof options !== 'object' || options.socketPath || options.socket) return false
  const name = String(options.host || options.hostname || 'localhost')
  return !/^(?:localhost|127(?:\.\d+){3}|\[?::1\]?|.*\.localhost)$/i.test(name)
}

/** Clients without an agent bring a function that connects (ws does); without it they get the global agent. */
function dropOwnConnections(library) {
  const original = library.request
  library.request = function request(...args) {
    const last = typeof args[0] === 'string' || args[0] instanceof URL ? 1 : 0
    const options = args[last]
    const isPlain = options && typeof options === 'object' && !options.agent && options.agent !== false
    if (
      isPlain &&
      typeof options.createConnection === 'function' &&
      proxyOf() &&
      isElsewhere(withUrl(args[0], options))
    )
      args[last] = Object.assign({}, options, { createConnection: undefined })
    return original.apply(this, args)
  }
  library.get = function get(...args) {
    const asked = library.request.apply(this, args)
    asked.end()
    return asked
  }
}

function withUrl(url, options) {
  if (typeof url !== 'string' && !(url instanceof URL)) return options
  const { hostname } = new URL(url)
  return Object.assign({ host: hostname }, options)
}

/** fetch, and whatever shares undici's dispatcher: one that reads the variables, made when the first asks for it. */
function leadFetch() {
  if (globalThis[DISPATCHER] !== undefined || !proxyOf()) return
  const settle = (value) =>
    Object.defineProperty(globalThis, DISPATCHER, { value, writable: true, enumerable: false, configurable: false })
  Object.defineProperty(globalThis, DISPATCHER, {
    configurable: true,
    enumerable: false,
    get() {
      settle(undefined) // should this fail, undici makes one of its own
      const { emitWarning } = process
      try {
        process.emitWarning = () => {} // that this agent is experimental in undici 6
        globalThis[DISPATCHER] = new (require('undici-6').EnvHttpProxyAgent)()
      } catch (cause) {
        tell(cause)
      } finally {
        process.emitWarning = emitWarning
      }
      return globalThis[DISPATCHER]
    },
    set: settle,
  })
}

function readRefusal(answer, socket, head, done) {
  const chunks = [head]
  const expected = Math.min(Number(answer.headers['content-length'] || 0), MAX_REFUSAL_BYTES)
  let size = head.length
  let isOver = false
  const finish = () => {
    if (isOver) return
    isOver = true
    socket.destroy()
    const text = Buffer.concat(chunks).subarray(0, expected).toString()
    try {
      const { detail, code } = JSON.parse(text)
      if (detail) return done(code ? `${detail} (${code})` : String(detail))
    } catch (_) {
      // no problem document: the status line says what there is to say
    }
    done(`${answer.statusCode} ${answer.statusMessage}`)
  }
  socket.on('error', finish)
  socket.once('close', finish)
  if (size >= expected) return finish()
  socket.on('data', (chunk) => {
    chunks.push(chunk)
    size += chunk.length
    if (size >= expected) finish()
  })
  socket.resume()
}

function failure(code, text, statusCode) {
  return Object.assign(new Error(text), { code, ...(statusCode ? { statusCode } : {}) })
}
