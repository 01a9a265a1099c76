/** What both sides of a WebSocket handshake share (RFC 6455 §1.3, §4). Pure. */
import { hash } from 'node:crypto'

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

/** `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`. */
export function acceptOf(key: string): string {
  return hash('sha1', key + GUID, 'base64')
}
