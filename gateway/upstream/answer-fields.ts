/** The fields of an answer: what becomes of each by its name, and their text without credentials. */
import type { Searcher } from './searcher.ts'

/** `drop`: nobody's business beyond this connection. */
export type Action =
  | 'keep'
  | 'drop'
  | 'connection'
  | 'transfer-encoding'
  | 'content-length'
  | 'content-encoding'
  | 'content-type'
  | 'set-cookie'
  | 'challenge'
  | 'digest'
  | 'etag'
  | 'part'
  | 'message-coding'

const MAX_NAMES = 512
const MAX_NAME_LENGTH = 64
/** Memo of a pure function; upstreams choose names, so it is bounded. */
const actions = new Map<string, Action>()

const FIXED: ReadonlyMap<string, Action> = new Map<string, Action>([
  ['connection', 'connection'],
  ['keep-alive', 'drop'],
  ['te', 'drop'],
  ['upgrade', 'drop'],
  ['transfer-encoding', 'transfer-encoding'],
  ['content-length', 'content-length'],
  ['content-encoding', 'content-encoding'],
  ['content-type', 'content-type'],
  ['set-cookie', 'set-cookie'],
  ['www-authenticate', 'challenge'],
  ['content-md5', 'digest'],
  ['content-digest', 'digest'],
  ['repr-digest', 'digest'],
  ['digest', 'digest'],
  ['etag', 'etag'],
  ['alt-svc', 'drop'], // leads clients to another place, past the gateway
  ['set-cookie2', 'set-cookie'],
  ['content-range', 'part'],
  ['im', 'part'], // RFC 3229: a difference to what the agent has, perhaps packed
  ['grpc-encoding', 'message-coding'],
  ['connect-content-encoding', 'message-coding'],
])

export function actionOf(name: string): Action {
  return actions.get(name) ?? learn(name)
}

function learn(name: string): Action {
  const action = classify(name.toLowerCase())
  if (actions.size < MAX_NAMES && name.length <= MAX_NAME_LENGTH) actions.set(name, action)
  return action
}

function classify(name: string): Action {
  // `Keyless-*` and `Proxy-*` are words of this gateway: an upstream could otherwise pass its answer off as a refusal.
  if (name.startsWith('proxy-') || name.startsWith('keyless-')) return 'drop'
  return FIXED.get(name) ?? 'keep'
}

/**
 * Names and values as text, credentials overwritten. The parser usually cuts all of them from one piece of memory, which
 * is then searched once and turned into text once.
 */
export function readFields(raw: readonly Buffer[], searcher: Searcher | null): { texts: string[]; found: number } {
  const texts = new Array<string>(raw.length)
  const whole = wholeOf(raw)
  if (whole === undefined) {
    const found = searcher === null ? 0 : raw.reduce((sum, part) => sum + searcher.mask(part), 0)
    for (let i = 0; i < raw.length; i += 1) texts[i] = (raw[i] as Buffer).toString('latin1')
    return { texts, found }
  }
  const found = searcher === null ? 0 : searcher.mask(whole)
  const text = whole.toString('latin1')
  for (let i = 0; i < raw.length; i += 1) {
    const part = raw[i] as Buffer
    const start = part.byteOffset - whole.byteOffset
    texts[i] = text.slice(start, start + part.length)
  }
  return { texts, found }
}

/** The memory from the first field to the last, if they lie in it in order. */
function wholeOf(raw: readonly Buffer[]): Buffer | undefined {
  const first = raw[0]
  if (first === undefined) return undefined
  let end = first.byteOffset
  for (let i = 0; i < raw.length; i += 1) {
    const part = raw[i] as Buffer
    if (part.buffer !== first.buffer || part.byteOffset < end) return undefined
    end = part.byteOffset + part.length
  }
  return Buffer.from(first.buffer, first.byteOffset, end - first.byteOffset)
}
