/**
 * The bundle that was taken up last, in the data directory: a restart decides by it when the source is away, and by nothing older
 * when it is back. Verified again like any other, so whoever changes the file gains nothing but a gateway that refuses.
 */

import { dirname } from 'node:path'
import { z } from 'zod'
import { makePrivate, readIfThere, replace } from '../../private-file.ts'
import { type Accepted, type Floor, payloadHash, type Terms, takeIn } from './intake.ts'

const schema = z.strictObject({
  version: z.int().min(1),
  payload: z.string(),
  revision: z.string().optional(),
  manifest: z.string(),
  files: z.record(z.string(), z.string()),
})

/** Durable when this resolves; the one before is whole until then. */
export async function keep(path: string, accepted: Accepted): Promise<void> {
  const { statement, manifest, revision, files } = accepted
  await makePrivate(dirname(path))
  await replace(
    path,
    JSON.stringify({
      version: statement.version,
      payload: payloadHash(accepted),
      revision,
      manifest: manifest.toString('base64'),
      files: Object.fromEntries(files),
    } satisfies z.input<typeof schema>),
  )
}

export interface Kept {
  /** Stands also when the bundle itself does not any more, because its key or its time is over. */
  readonly floor: Floor | undefined
  readonly accepted: Accepted | undefined
  /** Why it is not, in a sentence. */
  readonly trouble: string | undefined
}

/** Never throws for what the file holds. */
export async function recall(path: string, terms: Terms): Promise<Kept> {
  const bytes = await readIfThere(path)
  if (bytes === undefined) return { floor: undefined, accepted: undefined, trouble: undefined }
  let kept: z.output<typeof schema>
  try {
    kept = schema.parse(JSON.parse(bytes.toString('utf8')))
  } catch {
    return { floor: undefined, accepted: undefined, trouble: `${path} is damaged. Remove it, and the source is asked.` }
  }
  const { version, payload, revision, manifest, files } = kept
  const floor = { version, payload }
  const read = async (name: string) => Buffer.from(files[name] ?? '')
  try {
    const newest = terms.floor.version > version ? terms.floor : floor
    const accepted = await takeIn(
      { manifest: Buffer.from(manifest, 'base64'), revision, read },
      { ...terms, floor: newest },
    )
    return { floor, accepted, trouble: undefined }
  } catch (cause) {
    return { floor, accepted: undefined, trouble: cause instanceof Error ? cause.message : String(cause) }
  }
}
