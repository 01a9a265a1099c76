/** `node --import` this: a disk that takes its time, so that what does not wait for it is seen to go ahead. */
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'

const MAX_MS = 10

const write = fs.write as (...args: unknown[]) => void
const slow = (...args: unknown[]) => void setTimeout(() => write(...args), Math.random() * MAX_MS)
Object.assign(fs, { write: slow })
syncBuiltinESMExports()
