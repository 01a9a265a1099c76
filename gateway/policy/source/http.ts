/** Bundles at an address: the manifest, and beside it the files that it names. Asked with the entity tag of what is in force (RFC 9110 §13.1.2). */
import { MANIFEST, MAX_MANIFEST_BYTES } from './signature.ts'
import { MAX_FILE_BYTES, type Source } from './source.ts'

/** GET through the guarded dial, without redirects; of bounded size and time. */
export type Get = (
  url: string,
  o: { readonly etag?: string | undefined; readonly signal: AbortSignal },
) => Promise<{ readonly status: number; readonly etag: string | undefined; readonly body: Buffer }>

/** @param base where the manifest is, without its name; no query. */
export function httpSource(base: string, get: Get): Source {
  const at = (name: string) => `${base.replace(/\/+$/, '')}/${name}`
  const fetched = async (name: string, most: number, signal: AbortSignal) => {
    const { status, body } = await get(at(name), { signal })
    if (status !== 200) throw new Error(`${at(name)} answered ${status}.`)
    if (body.length > most) throw new Error(`${at(name)} is larger than ${most} bytes.`)
    return body
  }
  return {
    kind: 'http',
    place: base,
    async open(known, signal) {
      const { status, etag, body } = await get(at(MANIFEST), { etag: known, signal })
      if (status === 304 && known !== undefined) return undefined
      if (status !== 200) throw new Error(`${at(MANIFEST)} answered ${status}.`)
      if (body.length > MAX_MANIFEST_BYTES)
        throw new Error(`${at(MANIFEST)} is larger than ${MAX_MANIFEST_BYTES} bytes.`)
      return {
        manifest: body,
        revision: etag,
        read: (name) => fetched(name, MAX_FILE_BYTES, signal),
        async [Symbol.asyncDispose]() {},
      }
    },
    async [Symbol.asyncDispose]() {},
  }
}
