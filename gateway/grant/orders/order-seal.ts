/**
 * Orders at rest: encrypted, and named by a keyed hash of what they are about. Whoever can write to a store can lose one, but can
 * neither make nor change one; whoever can read it learns of nobody.
 */
import { createHmac, createSecretKey, type KeyObject } from 'node:crypto'
import { createSeal } from '../store/record.ts'
import type { StoredOrder } from '../store/store.ts'
import { aboutOf, type Order, type OrderTarget } from './order.ts'

export interface OrderSeal {
  nameOf(target: OrderTarget): string
  close(order: Order): StoredOrder
  /** Undefined: it is not one of ours, or not about what it stands under. */
  open(stored: StoredOrder): Order | undefined
}

/** @param key 32 bytes, the same on every replica. */
export function createOrderSeal(tenant: string, key: KeyObject): OrderSeal {
  const own = createSecretKey(createHmac('sha256', key).update('orders').digest())
  const seal = createSeal(own)
  const nameOf = (target: OrderTarget) =>
    createHmac('sha256', own)
      .update(`${tenant}\n${aboutOf(target)}`)
      .digest('base64url')
  return {
    nameOf,
    close(order) {
      const about = nameOf(order.target)
      return { about, body: seal.close(about, JSON.stringify(order)) }
    },
    open({ about, body }) {
      try {
        const order = seal.open(about, body) as Order
        return nameOf(order.target) === about ? order : undefined
      } catch {
        return undefined
      }
    },
  }
}
