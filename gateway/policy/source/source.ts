/**
 * Where bundles come from. A source hands over bytes and says which state of it they are of; what they are worth is settled by
 * their signature alone (`intake.ts`), so no source is trusted, and none has to be atomic.
 */

/** One state of a source. Files of another state are noticed by their hash. */
export interface Snapshot extends AsyncDisposable {
  /** The signed manifest. */
  readonly manifest: Buffer
  /** Commit, entity tag or time, as far as the source has one: for the record. */
  readonly revision: string | undefined
  /** @param name as the manifest has it: checked. @throws {Error} */
  read(name: string): Promise<Buffer>
}

export interface Source extends AsyncDisposable {
  readonly kind: 'dir' | 'http' | 'git'
  /** For the record and for people: path or address, without a secret. */
  readonly place: string
  /**
   * What is there now; undefined: what it was at `known`.
   * @param known `revision` of what is in force.
   * @throws {Error} saying why there is nothing.
   */
  open(known: string | undefined, signal: AbortSignal): Promise<Snapshot | undefined>
}

/** Of one policy file. */
export const MAX_FILE_BYTES = 512 * 1024
/** Of all policy files of a bundle. */
export const MAX_BUNDLE_BYTES = 8 * 1024 * 1024
