/** Bundles in a directory: a mounted ConfigMap, a checkout, what a sidecar keeps in step. */
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { MANIFEST, MAX_MANIFEST_BYTES } from './signature.ts'
import { MAX_FILE_BYTES, type Source } from './source.ts'

/** @param dir absolute. */
export function directorySource(dir: string): Source {
  return {
    kind: 'dir',
    place: dir,
    async open() {
      const manifest = await readUpTo(join(dir, MANIFEST), MAX_MANIFEST_BYTES)
      return {
        manifest,
        revision: undefined,
        read: (name) => readUpTo(join(dir, name), MAX_FILE_BYTES),
        async [Symbol.asyncDispose]() {},
      }
    },
    async [Symbol.asyncDispose]() {},
  }
}

/** Symbolic links are followed: Kubernetes mounts are made of them, and a signature says what may be in the file. */
async function readUpTo(path: string, most: number): Promise<Buffer> {
  // A pipe without a writer would hold a thread of the process for good.
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    const stat = await file.stat()
    if (!stat.isFile()) throw new Error(`${path} is not a file.`)
    const bytes = Buffer.alloc(most + 1)
    let size = 0
    for (;;) {
      const { bytesRead } = await file.read(bytes, size, bytes.length - size, null)
      size += bytesRead
      if (bytesRead === 0 || size > most) break
    }
    if (size > most) throw new Error(`${path} is larger than ${most} bytes.`)
    return bytes.subarray(0, size)
  } finally {
    await file.close()
  }
}
