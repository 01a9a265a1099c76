/**
 * Whose process is at the other end of a loopback connection, by the kernel's own table: on Linux a port without a password can
 * still be for one user alone.
 */
import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { endianness } from 'node:os'

/** Java and others reach 127.0.0.1 over sockets of either family. */
const TABLES = ['/proc/net/tcp', '/proc/net/tcp6']
const ESTABLISHED = '01'
const LOOPBACK = endianness() === 'LE' ? '0100007F' : '7F000001'

/** Whether this system tells. */
export const KNOWS_PEERS = process.platform === 'linux'

/** Whether the peer of a connection between two ports of 127.0.0.1 is a process of this process's user. */
export function isOwnPeer({ localPort = 0, remotePort = 0 }: Pick<Socket, 'localPort' | 'remotePort'>): boolean {
  const there = `${LOOPBACK}:${hex(remotePort)}`
  const here = `${LOOPBACK}:${hex(localPort)}`
  for (const table of TABLES) {
    for (const line of readTable(table)) {
      const [, local, remote, state, , , , uid, , inode] = line.trim().split(/\s+/)
      if (!local?.endsWith(there) || !remote?.endsWith(here)) continue
      // A connection that its process has left belongs, in this table, to root.
      return state === ESTABLISHED && inode !== '0' && Number(uid) === process.geteuid?.()
    }
  }
  return false
}

function readTable(path: string): string[] {
  try {
    return readFileSync(path, 'latin1').split('\n').slice(1)
  } catch {
    return [] // no IPv6, or no /proc: nobody is known
  }
}

function hex(port: number): string {
  return port.toString(16).toUpperCase().padStart(4, '0')
}
