/**
 * The three metadata functions that `tsyringe`, inside `@peculiar/x509`, expects of `Reflect` before it loads. Must be
 * imported before `@peculiar/x509`; leaves a polyfill that is already there alone.
 */
type MetadataReflect = typeof Reflect & {
  defineMetadata?(key: unknown, value: unknown, target: object): void
  getOwnMetadata?(key: unknown, target: object): unknown
  getMetadata?(key: unknown, target: object): unknown
}

const reflect: MetadataReflect = Reflect

if (reflect.getMetadata === undefined) {
  /** decorated class → metadata key → value */
  const metadata = new WeakMap<object, Map<unknown, unknown>>()
  reflect.defineMetadata = (key, value, target) => {
    const own = metadata.get(target) ?? new Map<unknown, unknown>()
    metadata.set(target, own.set(key, value))
  }
  reflect.getOwnMetadata = (key, target) => metadata.get(target)?.get(key)
  reflect.getMetadata = (key, target) => {
    for (let at: object | null = target; at !== null; at = Reflect.getPrototypeOf(at)) {
      const own = metadata.get(at)
      if (own?.has(key)) return own.get(key)
    }
    return undefined
  }
}
