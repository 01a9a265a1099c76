/**
 * Lines at the end of a file. Durable before `deliver` resolves. Another program may rename or remove the file at any time: the
 * next lines go to a new one of the same name.
 */
import { type FileHandle, mkdir, open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { syncDirectory } from '../../private-file.ts'
import type { Format } from './format.ts'
import type { Sink } from './sink.ts'

/** Readable by a group: programs that carry logs on seldom run as the gateway's user. */
const MODE = 0o640
const LF = 0x0a

export function createFileSink(path: string, format: Format): Sink {
  let file: FileHandle | undefined // written only by `deliver` and `close`, which are never called at once
  const release = async () => {
    const held = file
    file = undefined
    await held?.close()
  }
  return {
    async deliver(items) {
      if (file && !(await isSame(file, path))) await release()
      file ??= await openEnd(path)
      try {
        await file.appendFile(
          format
            .bodies(items)
            .map(({ text }) => text)
            .join(''),
        )
        await file.datasync()
      } catch (cause) {
        await release() // part of a line may be there: opening ends it
        throw cause
      }
    },
    close: release,
  }
}

async function isSame(file: FileHandle, path: string): Promise<boolean> {
  const [held, named] = await Promise.all([file.stat(), stat(path).catch(() => undefined)])
  return named !== undefined && held.ino === named.ino && held.dev === named.dev
}

/** A line that a crash or a full disk tore is ended, not cut: whoever follows the file may have read it. All of it comes again. */
async function openEnd(path: string): Promise<FileHandle> {
  await mkdir(dirname(path), { recursive: true })
  const file = await open(path, 'a+', MODE)
  try {
    const { size } = await file.stat()
    if (size === 0) await syncDirectory(dirname(path))
    const last = Buffer.alloc(1)
    if (size > 0) await file.read(last, 0, 1, size - 1)
    if (size > 0 && last[0] !== LF) await file.appendFile('\n')
    return file
  } catch (cause) {
    await file.close()
    throw cause
  }
}
