/**
 * What `opa build -t wasm` writes: a gzipped tar archive (POSIX ustar) with `policy.wasm` and `data.json`, or the wasm file alone.
 * Read from memory and never unpacked, so that no name in it leads anywhere.
 */
import { gunzipSync } from 'node:zlib'

export interface OpaBundle {
  readonly wasm: Buffer
  /** JSON text of the base documents; undefined: none. */
  readonly data: string | undefined
}

/** Bytes, unpacked. */
const MAX_BYTES = 64 * 1024 * 1024
const BLOCK = 512
const GZIP = Buffer.from([0x1f, 0x8b])
const WASM = Buffer.from('\0asm', 'latin1')

/** @throws {Error} saying what is wrong with it. */
export function readOpaBundle(bytes: Buffer): OpaBundle {
  if (!bytes.subarray(0, 2).equals(GZIP)) return { wasm: requireWasm(bytes), data: undefined }
  const files = filesOf(gunzipSync(bytes, { maxOutputLength: MAX_BYTES }))
  const wasm = files.get('policy.wasm')
  if (wasm === undefined)
    throw new Error('the bundle has no policy.wasm: build it with `opa build -t wasm -e ENTRYPOINT`')
  return { wasm: requireWasm(wasm), data: files.get('data.json')?.toString('utf8') }
}

function requireWasm(bytes: Buffer): Buffer {
  if (bytes.subarray(0, 4).equals(WASM)) return bytes
  throw new Error('it is neither a bundle of `opa build -t wasm` nor a wasm file')
}

/** Plain files by name, without the slash in front that OPA writes. */
function filesOf(archive: Buffer): Map<string, Buffer> {
  const files = new Map<string, Buffer>()
  for (let at = 0; at + BLOCK <= archive.length && archive[at] !== 0; ) {
    const text = (from: number, length: number) =>
      archive.toString('latin1', at + from, at + from + length).split('\0', 1)[0] as string
    const size = Number.parseInt(text(124, 12).trim(), 8)
    const start = at + BLOCK
    if (!Number.isSafeInteger(size) || size < 0 || start + size > archive.length)
      throw new Error('the archive is cut short')
    const isPlain = ['0', ''].includes(text(156, 1))
    const name = text(0, 100).replace(/^\.?\/+/, '')
    if (isPlain && files.has(name)) throw new Error(`the bundle has ${name} twice`)
    if (isPlain) files.set(name, archive.subarray(start, start + size))
    at = start + Math.ceil(size / BLOCK) * BLOCK
  }
  return files
}
