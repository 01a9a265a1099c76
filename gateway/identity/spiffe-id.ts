/** SPIFFE IDs (SPIFFE-ID §2): parsed by the letter, never normalised. Pure. */

export interface SpiffeId {
  readonly trustDomain: string
  /** With its leading slash; never empty: a trust domain by itself is no workload. */
  readonly path: string
}

const FORM = /^spiffe:\/\/([a-z0-9._-]{1,255})((?:\/[A-Za-z0-9._-]+)+)$/
const MAX_LENGTH = 2048

/** @returns undefined for anything that is not the id of a workload, relative path segments included. */
export function parseSpiffeId(text: string): SpiffeId | undefined {
  if (text.length > MAX_LENGTH) return undefined
  const [, trustDomain, path] = FORM.exec(text) ?? []
  if (trustDomain === undefined || path === undefined) return undefined
  return path.split('/').some((segment) => segment === '.' || segment === '..') ? undefined : { trustDomain, path }
}
