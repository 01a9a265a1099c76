/**
 * The bundle of a source that is in force, and what it takes to replace it: looks at the source, takes in what it offers, keeps it
 * on disk and hands it over. Owns the order of versions: it never goes back, not over a restart.
 */
import type { KeyObject } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { BundleView, SourceView } from '../protocol/control-policy.ts'
import { type Accepted, type Floor, hasEnded, payloadHash, type Terms, takeIn } from './source/intake.ts'
import { keep, recall } from './source/kept.ts'
import type { SourceFile } from './source/policy-file.ts'
import { BundleRefused, verifyManifest } from './source/signature.ts'
import type { Snapshot, Source } from './source/source.ts'

export interface SupplyTerms {
  /** Ed25519 public keys, and how many of them have to sign. */
  readonly keys: readonly KeyObject[]
  readonly signatures: number
  readonly name: string | undefined
  readonly minVersion: number
}

export interface SupplyOptions {
  readonly source: Source
  /** Absolute path of the file that holds the bundle over a restart. */
  readonly path: string
  readonly clock: Clock
}

/** A bundle that may decide. */
export interface Offer {
  readonly files: readonly SourceFile[]
  readonly view: BundleView
  /**
   * From now on it is what a restart begins with, and nothing older is taken. Before it decides: after a crash in between, the
   * next start begins with it, and writes that down.
   */
  keep(): Promise<void>
}

export class Supply {
  readonly #o: SupplyOptions
  #terms: SupplyTerms
  #floor: Floor
  /** In force. */
  #held: Accepted | undefined
  #lookedAtS: number | null = null

  constructor(o: SupplyOptions, terms: SupplyTerms) {
    this.#o = o
    this.#terms = terms
    this.#floor = { version: terms.minVersion }
  }

  get view(): SourceView {
    const { kind, place } = this.#o.source
    return {
      ...{ kind, place, looked_at: this.#lookedAtS },
      ...(this.#held && { bundle: bundleView(this.#held) }),
    }
  }

  /** Epoch seconds at which what is in force ends; undefined: it has no end, or there is none. */
  get endsAtS(): number | undefined {
    return this.#held?.statement.notAfter
  }

  /** What decided before the restart, if it still may. */
  async recall(): Promise<{ readonly offer: Offer | undefined; readonly trouble: string | undefined }> {
    const { floor, accepted, trouble } = await recall(this.#o.path, this.#intake())
    if (floor !== undefined && floor.version >= this.#floor.version) this.#floor = floor
    this.#held = accepted
    return { offer: accepted && this.#offer(accepted), trouble }
  }

  /**
   * Look at the source, and hand over what is newer than what is in force.
   * @param take has it decide, or throws: then the one before goes on.
   * @returns whether it was taken.
   * @throws {BundleRefused} with the reason, or what `take` throws.
   */
  async look(take: (offer: Offer) => Promise<void>, signal: AbortSignal): Promise<boolean> {
    await using snapshot = await this.#open(signal)
    this.#lookedAtS = Math.floor(this.#o.clock.nowMs() / 1000)
    if (snapshot === undefined) return false
    const accepted = await takeIn(snapshot, this.#intake())
    // Of what is in force already another signature or revision is nothing to take up.
    const isNew = this.#held === undefined || payloadHash(accepted) !== payloadHash(this.#held)
    if (isNew) await take(this.#offer(accepted))
    this.#held = accepted
    return isNew
  }

  /** Other keys, or more of them. @returns whether what is in force still has the signatures that it takes. */
  retain(terms: SupplyTerms): boolean {
    this.#terms = terms
    if (terms.minVersion > this.#floor.version) this.#floor = { version: terms.minVersion }
    if (this.#held === undefined) return true
    try {
      verifyManifest(this.#held.manifest, terms)
      const { version, name } = this.#held.statement
      return version >= this.#floor.version && (terms.name === undefined || terms.name === name)
    } catch {
      return false
    }
  }

  get hasEnded(): boolean {
    return this.#held !== undefined && hasEnded(this.#held, this.#intake().nowS)
  }

  /** Nothing of this source decides any more. */
  drop(): void {
    this.#held = undefined
  }

  async close(): Promise<void> {
    await this.#o.source[Symbol.asyncDispose]()
  }

  #offer(accepted: Accepted): Offer {
    const { statement, files } = accepted
    const { name, version } = statement
    return {
      files: [...files].map(([file, text]) => ({ label: `${name}/${file}`, text })),
      view: bundleView(accepted),
      keep: async () => {
        await keep(this.#o.path, accepted)
        this.#floor = { version, payload: payloadHash(accepted) }
      },
    }
  }

  #intake(): Terms {
    const { keys, signatures, name } = this.#terms
    return { keys, signatures, name, floor: this.#floor, nowS: Math.floor(this.#o.clock.nowMs() / 1000) }
  }

  async #open(signal: AbortSignal): Promise<Snapshot | undefined> {
    try {
      return await this.#o.source.open(this.#held?.revision, signal)
    } catch (cause) {
      throw new BundleRefused(
        `The source of policies gives nothing: ${cause instanceof Error ? cause.message : String(cause)}`,
        { cause },
      )
    }
  }
}

function bundleView({ statement, signedBy, revision }: Accepted): BundleView {
  const { name, version, issuedAt, notAfter } = statement
  return {
    ...{ name, version, signed_by: signedBy, issued_at: issuedAt },
    ...(revision !== undefined && { revision }),
    ...(notAfter !== undefined && { not_after: notAfter }),
  }
}
