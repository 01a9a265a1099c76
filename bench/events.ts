/** A far side of endless event streams: one event a second on each. A process of its own: `node bench/events.ts PORT`. */
import { createServer, type ServerResponse } from 'node:http'

const open = new Set<ServerResponse>()
const server = createServer((_, reply) => {
  reply.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  reply.write('data: begun\n\n')
  open.add(reply)
  reply.once('close', () => open.delete(reply))
})
setInterval(() => {
  for (const reply of open) reply.write(`data: ${open.size}\n\n`)
}, 1000)
server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 })
