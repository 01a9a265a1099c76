/**
 * The unix socket of the control door. Whoever may open it is the gateway's user: its mode is the authentication, so it never
 * exists with a wider one, and a gateway that is running here is never pushed aside.
 */
import { lstatSync, mkdirSync, statSync, unlinkSync } from 'node:fs'
import type { Server } from 'node:http'
import { connect } from 'node:net'
import { dirname } from 'node:path'

const OTHERS_MAY_WRITE = 0o002
const STICKY = 0o1000

/** Make `path` free to listen on. @throws {Error} that says what is in the way. */
export async function clearSocketPath(path: string): Promise<void> {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
  const { mode } = statSync(dirname(path))
  if ((mode & OTHERS_MAY_WRITE) !== 0 && (mode & STICKY) === 0) {
    throw new Error(
      `Everyone may write to ${dirname(path)}, so anyone could put another socket in place of ${path}. Choose another place with listen.control_socket, or take that right away (chmod o-w).`,
    )
  }
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found === undefined) return
  if (!found.isSocket())
    throw new Error(`${path} is in the way: it is not a socket. Move it, or choose another listen.control_socket.`)
  if (await isAnswered(path)) {
    throw new Error(
      `A gateway is already running here: it answers at ${path}. Stop it first, or start this one with another data_dir (KEYLESS_HOME).`,
    )
  }
  unlinkSync(path) // left behind by a process that was killed
}

/** Listen with mode 0600 from the first moment: binding happens inside `listen`, so the narrowed umask touches nothing else. */
export async function listenOnSocket(server: Server, path: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject)
  const umask = process.umask(0o177)
  try {
    server.listen(path, resolve)
  } finally {
    process.umask(umask)
  }
  await promise
  server.off('error', reject)
}

function isAnswered(path: string): Promise<boolean> {
  const { promise, resolve, reject } = Promise.withResolvers<boolean>()
  const probe = connect(path)
  probe.setTimeout(2_000, () =>
    probe.destroy(Object.assign(new Error(`${path} takes connections and does not answer`), { code: 'ETIMEDOUT' })),
  )
  probe.on('connect', () => {
    probe.destroy()
    resolve(true)
  })
  probe.on('error', (cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ECONNREFUSED' || cause.code === 'ENOENT') resolve(false)
    else reject(new Error(`Whether a gateway is running at ${path} cannot be found out: ${cause.message}`, { cause }))
  })
  return promise
}
