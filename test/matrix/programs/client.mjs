/** Node clients of the matrix: CLIENT BASE CASE… → one JSON line a case, as the client's user would see it. */
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'

const [client, base, ...cases] = process.argv.slice(2)
const OWN = { authorization: 'Bearer placeholder-of-the-agent' }
const CHUNKS = 96

function* pieces() {
  for (let i = 0; i < CHUNKS; i++) yield Buffer.alloc(32_768, 'u')
}

async function digest(parts) {
  const sha = createHash('sha256')
  let bytes = 0
  for await (const part of parts) {
    bytes += part.length
    sha.update(part)
  }
  return { bytes, sha256: sha.digest('hex') }
}

/** The second event comes only after the first one was seen: an answer that is held back ends in a timeout. */
async function events(body, acknowledge) {
  const seen = []
  let rest = ''
  for await (const part of body) {
    const lines = (rest + Buffer.from(part).toString()).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines.filter((one) => one.startsWith('data:'))) {
      seen.push(line.slice(5).trim())
      if (seen.length === 1) await acknowledge()
    }
  }
  return { events: seen }
}

/** Anything with the interface of fetch. */
const withFetch = (ask, ws) => ({
  get: async () => (await ask(`${base}/get`, { headers: OWN })).json(),
  post: async () =>
    (
      await ask(`${base}/post`, {
        method: 'POST',
        headers: { ...OWN, 'content-type': 'application/json' },
        body: JSON.stringify({ from: client }),
      })
    ).json(),
  upload: async () =>
    (
      await ask(`${base}/upload`, { method: 'POST', headers: OWN, body: Readable.from(pieces()), duplex: 'half' })
    ).json(),
  download: async () => digest((await ask(`${base}/download`, { headers: OWN })).body),
  sse: async () =>
    events((await ask(`${base}/sse`, { headers: OWN })).body, () => ask(`${base}/seen`, { headers: OWN })),
  ws,
  refused: async () => {
    const answer = await ask(`${base}/refused`, { method: 'DELETE', headers: OWN })
    return { status: answer.status, text: await answer.text() }
  },
})

/** Anything with the interface of WebSocket. */
const withWebSocket =
  (url, WebSocket, ...options) =>
  () =>
    new Promise((resolve, reject) => {
      const socket = new WebSocket(url.replace('https:', 'wss:'), ...options)
      let greeting
      socket.onerror = (event) => reject(event.error ?? new Error(event.message))
      socket.onclose = (event) => reject(new Error(`closed with ${event.code}`))
      socket.onmessage = ({ data }) => {
        if (greeting !== undefined) {
          resolve({ greeting, echo: data })
          return socket.close()
        }
        greeting = data
        socket.send('ping')
      }
    })

const clients = {
  fetch: () => withFetch(fetch, withWebSocket(`${base}/ws`, globalThis.WebSocket)),
  async undici() {
    const undici = await import('undici')
    undici.setGlobalDispatcher(new undici.EnvHttpProxyAgent())
    return withFetch(undici.fetch, withWebSocket(`${base}/ws`, undici.WebSocket))
  },
  async axios() {
    const { default: axios } = await import('axios')
    const api = axios.create({ baseURL: base, headers: OWN })
    return {
      get: async () => (await api.get('/get')).data,
      post: async () => (await api.post('/post', { from: client })).data,
      upload: async () => (await api.post('/upload', Readable.from(pieces()), { maxRedirects: 0 })).data,
      download: async () => digest((await api.get('/download', { responseType: 'stream' })).data),
      sse: async () => events((await api.get('/sse', { responseType: 'stream' })).data, () => api.get('/seen')),
      refused: async () => {
        const { status, data } = await api.delete('/refused', { validateStatus: () => true })
        return { status, text: JSON.stringify(data) }
      },
    }
  },
  async got() {
    const { default: got } = await import('got')
    const api = got.extend({ prefixUrl: base, headers: OWN, retry: { limit: 0 } })
    return {
      get: () => api('get').json(),
      post: () => api.post('post', { json: { from: client } }).json(),
      upload: () => api.post('upload', { body: Readable.from(pieces()) }).json(),
      download: () => digest(api.stream('download')),
      sse: () => events(api.stream('sse'), () => api('seen')),
      refused: async () => {
        const { statusCode, body } = await api.delete('refused', { throwHttpErrors: false })
        return { status: statusCode, text: body }
      },
    }
  },
  async ws() {
    const { WebSocket } = await import('ws')
    return {
      ws: withWebSocket(`${base}/ws`, WebSocket, { headers: OWN }),
      refused: withWebSocket(`${base}/refused`, WebSocket, { headers: OWN }),
    }
  },
  async openai() {
    const { default: OpenAI } = await import('openai')
    const ai = new OpenAI({ apiKey: 'placeholder-of-the-agent', baseURL: `${base}/v1` })
    const ask = { model: 'm', messages: [{ role: 'user', content: 'hello' }] }
    return {
      post: async () => JSON.parse((await ai.chat.completions.create(ask)).choices[0].message.content),
      async sse() {
        const seen = []
        for await (const event of await ai.chat.completions.create({ ...ask, stream: true })) {
          seen.push(event.choices[0].delta.content)
          if (seen.length === 1) await fetch(`${base}/seen`, { headers: OWN })
        }
        return { events: seen }
      },
      refused: () => ai.models.delete('m'),
    }
  },
  async anthropic() {
    const { default: Anthropic } = await import('@anthropic-ai/sdk')
    const ai = new Anthropic({ apiKey: 'placeholder-of-the-agent', baseURL: base })
    const ask = { model: 'm', max_tokens: 9, messages: [{ role: 'user', content: 'hello' }] }
    return {
      post: async () => JSON.parse((await ai.messages.create(ask)).content[0].text),
      async sse() {
        const seen = []
        for await (const event of await ai.messages.create({ ...ask, stream: true })) {
          if (event.type !== 'content_block_delta') continue
          seen.push(event.delta.text)
          if (seen.length === 1) await fetch(`${base}/seen`, { headers: OWN })
        }
        return { events: seen }
      },
      refused: () => ai.messages.batches.delete('m'),
    }
  },
}

const deeds = await clients[client]()
for (const one of cases) {
  let found
  try {
    found = await deeds[one]()
  } catch (error) {
    const causes = []
    for (let cause = error; cause instanceof Error; cause = cause.cause) causes.push(`${cause.name}: ${cause.message}`)
    found = { error: causes.join(' ← ') }
  }
  process.stdout.write(`${JSON.stringify({ case: one, found })}\n`)
}
process.exit(0)
