/** An MCP server with one tool, which asks an API; and says whether the variable KEYLESS_TEST_GIVEN reached it. */
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js'
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js'

const server = new McpServer({ name: 'server', version: '1' })
server.registerTool('look', { description: 'looks' }, async () => {
  const asked = await fetch('https://api.demo.test/from-mcp', {
    headers: { authorization: `Bearer ${process.env.DEMO_API_KEY}` },
  })
  return {
    content: [
      { type: 'text', text: JSON.stringify({ status: asked.status, given: process.env.KEYLESS_TEST_GIVEN ?? null }) },
    ],
  }
})
await server.connect(new StdioServerTransport())
