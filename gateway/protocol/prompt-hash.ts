/**
 * What a caller says of the prompt behind a request: `keyless-prompt-hash: sha256:<digest>`, hex or base64url. It ties a call in the
 * log to a prompt that the log never sees. Pure.
 */
import { GatewayError } from './problem.ts'

const HEX = /^[0-9a-f]{64}$/i
/** 43 characters for 256 bits: the last one stands for four of them. */
const BASE64URL = /^[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]$/

/**
 * The digest in one spelling, `sha256:` and base64url, so that equal prompts are found by it.
 * @throws {GatewayError} `request_malformed`: ignored, it would be missing when somebody looks for it, and what stands there may be the
 * prompt itself, so it is not repeated.
 */
export function readPromptHash(text: string | undefined): string | undefined {
  if (text === undefined) return undefined
  const digest = text.startsWith('sha256:') ? text.slice('sha256:'.length) : ''
  if (BASE64URL.test(digest)) return text
  if (HEX.test(digest)) return `sha256:${Buffer.from(digest, 'hex').toString('base64url')}`
  throw new GatewayError(
    'request_malformed',
    'The field keyless-prompt-hash is not `sha256:` and a digest of 32 bytes in hex or base64url. Send the hash of the prompt, never the prompt.',
  )
}
