/** What every room wants of Redis: an answer in bounded time, and to hear of changes on a connection of its own. */
import type { Redis } from 'ioredis'

/** A Redis that takes longer is as good as gone: whoever needs it is refused instead of held. */
const ANSWER_MS = 1_000

/** @param refused makes what is thrown of why there is no answer. */
export async function answered<T>(work: Promise<T>, refused: (cause: unknown) => Error): Promise<T> {
  const late = Promise.withResolvers<never>()
  const refuse = () => late.reject(new Error(`Redis did not answer within ${ANSWER_MS} ms`))
  // One more turn: after a stall of our own, timers run before the answers that have arrived meanwhile are read.
  const timer = setTimeout(() => setImmediate(refuse), ANSWER_MS)
  try {
    return await Promise.race([work, late.promise])
  } catch (cause) {
    throw refused(cause)
  } finally {
    clearTimeout(timer)
  }
}

/** Subscribes on every new connection. What is said between two is lost. @param subscribed is called each time. */
export function subscribe(redis: Redis, channels: readonly string[], subscribed: () => void = () => undefined): Redis {
  const subscriber = redis.duplicate({
    lazyConnect: false,
    enableOfflineQueue: true,
    maxRetriesPerRequest: null,
    autoResubscribe: false,
  })
  subscriber.on('error', () => undefined)
  subscriber.on('ready', () => void subscriber.subscribe(...channels).then(subscribed, () => undefined))
  return subscriber
}
