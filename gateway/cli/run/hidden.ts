/** What is typed and shown to nobody: at a terminal by a prompt that shows nothing, elsewhere standard input to its end. */

/** One trailing newline is cut. @throws {Error} when whoever types breaks off. */
export async function readHidden(words: string): Promise<string> {
  const text = process.stdin.isTTY ? await prompt(words) : await readAll()
  return text.replace(/\r?\n$/, '')
}

async function readAll(): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks).toString('utf8')
}

const ENTER = new Set(['\r', '\n', '\u0004'])
const ERASE = new Set(['\u007f', '\b'])
const INTERRUPT = '\u0003'

function prompt(words: string): Promise<string> {
  const { stdin, stderr } = process
  stderr.write(words)
  stdin.setRawMode(true)
  stdin.setEncoding('utf8').resume()
  return new Promise((done, fail) => {
    let typed = ''
    const end = (settle: () => void) => {
      stdin.setRawMode(false)
      stdin.pause().removeAllListeners('data')
      stderr.write('\n')
      settle()
    }
    stdin.on('data', (keys: string) => {
      for (const key of keys) {
        if (key === INTERRUPT) return end(() => fail(new Error('Broken off: nothing was done.')))
        if (ENTER.has(key)) return end(() => done(typed))
        typed = ERASE.has(key) ? typed.slice(0, -1) : typed + key
      }
    })
  })
}
