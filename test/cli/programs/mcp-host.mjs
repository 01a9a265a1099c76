/** An MCP host as the TypeScript SDK makes one: it starts its server with an emptied environment. Prints what the tool returned. */
import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'

const [command, ...args] = process.argv.slice(2)
const client = new Client({ name: 'host', version: '1' })
await client.connect(new StdioClientTransport({ command, args, stderr: 'inherit' }))
const { content } = await client.callTool({ name: 'look' })
process.stdout.write(content[0].text)
await client.close()
