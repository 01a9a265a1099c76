/**
 * Records of gateways that knew one grant a task and no delegation, read as what they are now: a root grant that cannot be
 * delegated, and its task. None is older than an hour. Pure.
 */
import type { Grant } from '../../protocol/grant.ts'

type Later = 'depth' | 'maxDepth' | 'delegable' | 'ancestry' | 'attestations'

export function grantOfVersion1(sealed: Omit<Grant, Later>): Grant {
  return { ...sealed, depth: 0, maxDepth: 0, delegable: false, ancestry: [], attestations: [] }
}

/** A task of version 1 has no record: in its place is that of its grant (`store-sqlite-schema.ts`). */
export function taskBodyOfVersion1(body: string): { readonly handleDigest: string; readonly body: string } | undefined {
  const end = body.indexOf('\n')
  return end === -1 ? undefined : { handleDigest: body.slice(0, end), body: body.slice(end + 1) }
}
