/**
 * What may not leave beside the credential that the gateway attaches: handles and grants of a gateway never; somebody's key, in a
 * credential slot or anywhere else, where policy obliges to log or refuse it. Says the rule and the place, never the value.
 */
import { gunzipSync } from 'node:zlib'
import { withoutAwsSignature } from '../protocol/aws-claim.ts'
import type { Obligations } from '../protocol/decision.ts'
import type { Censor, Inbound, RawHeaders, Sighting } from '../protocol/message.ts'
import { credentialInPath } from '../protocol/path-slot.ts'
import { GatewayError } from '../protocol/problem.ts'
import { valuesOf } from '../protocol/raw-headers.ts'
import type { Endpoint, Service } from '../protocol/service.ts'
import { CANARY, type Found } from './bait.ts'
import { bytesCarryGrant, ownGrant } from './grant-in.ts'
import { readings } from './readings.ts'
import type { SecretRules } from './secret-rules.ts'
import { valuesInSlots } from './slots.ts'

/** Of one request: its head, and its body as it leaves. */
export interface Inspection extends Censor {
  /** What was found so far; complete when the body has passed. */
  readonly sightings: readonly Sighting[]
}

/** Bytes of a body that are looked at again with the next ones: no credential that is searched for is longer. */
const OVERLAP = 4096
/** Room for small pieces, one behind the other. */
const ROOM = 8 * OVERLAP
const MAX_UNPACKED_BYTES = 1024 * 1024

/**
 * Look at the head of a request before anything is spent on it.
 * @returns who looks at the body; undefined when there is nothing to look for.
 * @throws {GatewayError} `foreign_credential` where policy refuses.
 */
export function inspect(
  inbound: Inbound,
  { service }: Endpoint,
  { foreignCredentials: mode }: Obligations,
  { rules, found: tell }: Seekers,
): Inspection | undefined {
  const isSilent = inbound.body === null && inbound.upgrade === undefined
  if (mode === undefined) return isSilent ? undefined : new Findings(inbound.rawHeaders, undefined, { found: tell })
  // No rules though policy asks for them: it was not known when the gateway started, and nothing may pass unseen.
  if (rules === undefined) throw new Error('the rules for foreign credentials are not loaded')
  const found = new Findings(inbound.rawHeaders, mode, { rules, found: tell })
  for (const name of foreignSlots(inbound, service)) found.see('slot', name)
  for (const [where, text] of placesOf(inbound, service))
    for (const rule of rules(readings(text))) found.see(rule, where)
  found.requireNone()
  return found
}

interface Seekers {
  readonly rules?: SecretRules | undefined
  /** Undefined: there are no canaries. */
  readonly found?: Found | undefined
}

class Findings implements Inspection {
  readonly #mode: Obligations['foreignCredentials']
  readonly #rules: SecretRules | undefined
  readonly #found: Found | undefined
  readonly #isPacked: boolean
  readonly #isGzip: boolean
  readonly #seen = new Map<string, Sighting>()
  #tail: Buffer | undefined
  /** Where small pieces are joined: a flood of pieces of one byte would otherwise cost two copies of the tail each. */
  #room: Buffer | undefined

  constructor(rawHeaders: RawHeaders, mode: Obligations['foreignCredentials'], { rules, found }: Seekers) {
    this.#mode = mode
    this.#rules = rules
    this.#found = found
    const isPlain = mode === undefined && found === undefined
    const coding = isPlain ? '' : valuesOf(rawHeaders, 'content-encoding').join(', ').trim().toLowerCase()
    this.#isPacked = coding !== '' && coding !== 'identity' && coding !== 'aws-chunked' // frames around plain bytes
    this.#isGzip = coding === 'gzip' || coding === 'x-gzip'
  }

  get sightings(): readonly Sighting[] {
    return [...this.#seen.values()]
  }

  see(rule: string, where: string): void {
    this.#seen.set(`${rule} ${where}`, { rule, where })
  }

  /** @throws {GatewayError} */
  requireNone(): void {
    const refusal = this.#refusal()
    if (refusal !== undefined) throw refusal
  }

  look(chunk: Buffer, isLast = false): GatewayError | undefined {
    const bytes = this.#tail === undefined ? chunk : this.#joined(this.#tail, chunk)
    const refusal = this.#judge(bytes, chunk)
    // A message ends what it says: the next one begins no word in the middle.
    this.#tail = isLast ? undefined : this.#kept(bytes.subarray(-OVERLAP))
    return refusal
  }

  #joined(tail: Buffer, chunk: Buffer): Buffer {
    if (chunk.length > OVERLAP) return Buffer.concat([tail, chunk])
    this.#room ??= Buffer.allocUnsafeSlow(ROOM)
    const room = this.#room
    let start = tail.buffer === room.buffer ? tail.byteOffset : ROOM
    if (start + tail.length + chunk.length > ROOM) {
      tail.copy(room)
      start = 0
    }
    chunk.copy(room, start + tail.length)
    return room.subarray(start, start + tail.length + chunk.length)
  }

  /** A copy, unless it is one: the chunk belongs to whoever sends it. */
  #kept(bytes: Buffer): Buffer {
    return bytes.buffer === this.#room?.buffer ? bytes : Buffer.from(bytes)
  }

  lookAlone(bytes: Buffer): GatewayError | undefined {
    return this.#judge(bytes, bytes)
  }

  #judge(bytes: Buffer, chunk: Buffer): GatewayError | undefined {
    if (bytesCarryGrant(bytes)) {
      this.see('keyless', 'body')
      return ownGrant('its body')
    }
    if (this.#rules === undefined && this.#found === undefined) return this.#refusal()
    const text = this.#isPacked ? this.#unpacked(chunk) : bytes.toString('latin1')
    const bait = text === undefined ? undefined : this.#found?.(text, 'body')
    if (bait !== undefined) {
      this.see(CANARY, 'body')
      return bait
    }
    if (this.#rules !== undefined) {
      for (const rule of text === undefined ? ['unreadable'] : this.#rules(readings(text))) this.see(rule, 'body')
    }
    return this.#refusal()
  }

  /** A small body comes whole, as git sends it; of a longer one nothing can be said before it is over. */
  #unpacked(chunk: Buffer): string | undefined {
    if (!this.#isGzip || this.#tail !== undefined) return undefined
    try {
      return gunzipSync(chunk, { maxOutputLength: MAX_UNPACKED_BYTES }).toString('latin1')
    } catch {
      return undefined
    }
  }

  #refusal(): GatewayError | undefined {
    if (this.#mode !== 'refuse' || this.#seen.size === 0) return undefined
    const { sightings } = this
    const seen = sightings.map(({ rule, where }) => `${rule} in ${where}`).join(', ')
    const refusal = new GatewayError(
      'foreign_credential',
      `The request carries something that policy does not let out: ${seen}. Leave it out; the gateway attaches the credential that is needed.`,
    )
    return Object.assign(refusal, { sightings })
  }
}

/** Slots in which something stands that is neither a placeholder nor what the agent showed to the gateway. */
function foreignSlots(inbound: Inbound, service: Service): string[] {
  const known = new Set([...Object.values(service.placeholders), inbound.presented?.token])
  const isOurs = (value: string) =>
    value === '' || known.has(value) || /^b?kh_/.test(value) || /keyless[-_]?placeholder|klp_[\w-]{43}$/i.test(value)
  return valuesInSlots(inbound, service)
    .filter(({ value }) => !isOurs(value))
    .map(({ name }) => name)
}

/** Texts of the head that leave, by place. What stands in slots does not, and what is for the gateway does not. */
function placesOf({ rawHeaders, rawPath }: Inbound, service: Service): [where: string, text: string][] {
  const slots = new Set(service.slots.flatMap((slot) => (slot.in === 'header' ? [slot.name.toLowerCase()] : [])))
  const places: [string, string][] = []
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase()
    const value = rawHeaders[i + 1] as string
    const stays = name === 'authorization' || name.startsWith('proxy-') || slots.has(name)
    if (!stays && value.length >= SHORTEST) places.push([`header ${name}`, `${name}: ${value}`])
  }
  if (rawPath.length >= SHORTEST) places.push(['path or query', leaving(rawPath, service)])
  return places
}

/** Without what stands in slots. */
function leaving(rawPath: string, { slots }: Service): string {
  const path = credentialInPath(rawPath, slots)?.rest ?? rawPath
  return slots.some((slot) => slot.in === 'signature' && slot.scheme === 'aws4') ? withoutAwsSignature(path) : path
}

/** No rule finds anything in less. */
const SHORTEST = 16
