/** Runs many clients under one launcher, a few at a time: FILE with [{id, command}] → one JSON line for each. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'

const waiting = JSON.parse(readFileSync(process.argv[2], 'utf8'))
const AT_ONCE = 3
const LONGEST_MS = 60_000

async function work() {
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
    const [program, ...args] = next.command
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: LONGEST_MS })
    const said = { stdout: '', stderr: '' }
    for (const stream of ['stdout', 'stderr'])
      child[stream].setEncoding('utf8').on('data', (text) => (said[stream] += text))
    await once(child, 'close')
    process.stdout.write(`${JSON.stringify({ id: next.id, ...said })}\n`)
  }
}

await Promise.all(Array.from({ length: AT_ONCE }, work))
