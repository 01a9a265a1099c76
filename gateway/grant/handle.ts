/**
 * Handles: short opaque stand-ins for a grant, for clients that can only send a user name and a password. The gateway keeps
 * their SHA-256 alone, so neither its store nor a backup of it can be used to act as an agent.
 */
import { hash, randomBytes } from 'node:crypto'

const PREFIX = 'kh_'
/** Ends as the other one begins, so that one search finds both where none may be. */
const BREAK_GLASS = 'bkh_'
const SHAPE = /^b?kh_[A-Za-z0-9_-]{43}$/

/** A fresh handle: `kh_` and 32 random bytes, base64url. Shown once, to whoever opened the task. */
export function newHandle(): string {
  return PREFIX + randomBytes(32).toString('base64url')
}

/**
 * The handle of emergency access: `bkh_` and a keyed hash of the request, so that every gateway where it is opened knows it by the same
 * one, and its prefix alone says who is asked about it.
 */
export function breakGlassHandle(mac: Buffer): string {
  return BREAK_GLASS + mac.toString('base64url')
}

export function isBreakGlassHandle(token: string): boolean {
  return token.startsWith(BREAK_GLASS)
}

/** Whether the caller meant a handle; it may still be misshapen. */
export function isHandle(token: string): boolean {
  return token.startsWith(PREFIX) || isBreakGlassHandle(token)
}

/** Whether it could be one of ours. Anything else is refused without asking the store. */
export function isWellShaped(handle: string): boolean {
  return SHAPE.test(handle)
}

/**
 * What is stored and looked up instead of a token, base64url SHA-256. Hash, then look up: an attacker who times the lookup
 * learns about hash bits, which do not lead back to a handle (CWE-208).
 */
export function digestOf(token: string): string {
  return hash('sha256', token, 'base64url')
}
