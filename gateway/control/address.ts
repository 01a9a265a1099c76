/** Which names a request may call the control door by, and which addresses are the control door. Pure. */

/** `localhost`, anything below it (RFC 6761 §6.3), 127.0.0.0/8 and ::1. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host.endsWith('.localhost') || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host)
}

/** IPv4 as IPv4, also where a dual-stack socket shows it as `::ffff:10.0.0.1`. */
export function plainAddress(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice('::ffff:'.length) : address
}

/**
 * Whether a Host field can come from someone who meant this door. A web page that had its own name resolve to our address
 * (DNS rebinding) sends that name; it cannot send an address or one of the names we are configured with.
 * @param host lower case, without port or brackets. @param localAddress the address that the connection came to.
 */
export function isOwnName(host: string, names: ReadonlySet<string>, localAddress: string | undefined): boolean {
  return isLoopback(host) || names.has(host) || (localAddress !== undefined && host === plainAddress(localAddress))
}

/** Whether an address is the control door. @param o.boundTo host that the door listens on. @param o.own addresses of this machine. */
export function isBoundAddress(
  host: string,
  o: { readonly boundTo: string; readonly own: ReadonlySet<string> },
): boolean {
  const address = plainAddress(host)
  if (address === o.boundTo || address === '0.0.0.0' || address === '::') return true
  if (o.boundTo === '0.0.0.0' || o.boundTo === '::') return isLoopback(address) || o.own.has(address)
  return isLoopback(o.boundTo) && isLoopback(address)
}
