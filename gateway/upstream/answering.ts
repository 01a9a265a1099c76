/** The answer that a request gets, whichever attempt brings it and whatever protocol that speaks. */
import { BodyHash, type StartHash } from '../protocol/keyed-hash.ts'
import type { Outbound } from '../protocol/message.ts'
import { carriesSecret } from '../protocol/service.ts'
import { Answer, type AnswerParts, type Source } from './answer.ts'
import type { Searchers } from './searcher.ts'

export interface AnsweringParts extends Pick<AnswerParts, 'flushSoon'> {
  readonly searchers: Searchers
  readonly hashes: BodyHashes
}

/** Of which bodies there is a keyed hash. */
export interface BodyHashes {
  readonly requests?: StartHash
  readonly answers?: StartHash
}

/** What makes the answer to a request, for the attempt that brings it. */
export function answering(
  { searchers, flushSoon, hashes }: AnsweringParts,
  { secrets, method, service, acceptEncoding, capture, redact, meter, grant }: Outbound,
  { reply, leaked }: Pick<AnswerParts, 'reply' | 'leaked'>,
): (source: Source) => Answer {
  const parts = {
    reply,
    leaked,
    searcher: searchers.for(secrets),
    isCredentialed: secrets.length > 0,
    isSearched: carriesSecret(service),
    isHead: method === 'HEAD',
    slots: service.slots,
    passesCookies: service.passesCookies,
    acceptEncoding,
    capture,
    redact,
    meter,
    flushSoon,
  }
  return (source) => new Answer(parts, source, new BodyHash(hashes.answers, grant.tenant))
}
