/** What an operator sees of the roots on disk, and their change by command. Gateways that run notice by themselves. */
import { createHash } from 'node:crypto'
import type { RootView } from '../protocol/root-view.ts'
import { hostsOf } from './constraints.ts'
import { makeRoot, type Root } from './root.ts'
import { addRoot, publish, readFiles, removeRoot, rootsIn } from './root-files.ts'
import { type Heir, succession } from './succession.ts'

const MAX_LIFE_MS = 365 * 86_400_000

/** The roots in `dir` that agents are told to trust; the one that signs comes first. @throws Error when they cannot be read. */
export async function viewRoots(dir: string, nowMs: number): Promise<RootView[]> {
  const { living } = succession(await rootsOf(dir), nowMs)
  return living.map((heir) => viewOf(heir, nowMs))
}

/**
 * Add a root for the names of the newest one, with a life as long.
 * @param isNow take away all others at once: agents trust nothing until they have the new `ca.pem`.
 * @throws Error when there is none, or it is an operator's own.
 */
export async function rotateRoot(dir: string, nowMs: number, isNow: boolean): Promise<void> {
  const before = await rootsOf(dir)
  const newest = before.at(-1) as Root
  if (newest.isOperators)
    throw new Error(`The CA in ${dir} was not made by Keyless. Replace ca.key and ca.pem in its place.`)
  const hosts = newest.constraints && hostsOf(newest.constraints)
  const lifeMs = Math.min(newest.endsAtMs - newest.madeAtMs, MAX_LIFE_MS)
  await addRoot(dir, newest.number + 1, await makeRoot({ hosts, lifeMs, nowMs, title: 'Keyless CA' }))
  // A crash from here on leaves both, as without `isNow`; `ca.pem` holds the new root before any old one goes.
  await publishAll(dir, nowMs)
  if (!isNow) return
  for (const root of before) await removeRoot(dir, root)
  await publishAll(dir, nowMs)
}

async function rootsOf(dir: string): Promise<Root[]> {
  const found = await readFiles(dir).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code !== 'ENOENT') throw cause
  })
  const roots = found === undefined ? [] : rootsIn(dir, found)
  if (roots.length > 0) return roots
  throw new Error(
    `${dir} holds no CA. Name the directory that the gateways use: <data_dir>/keys, or what keys_dir says.`,
  )
}

async function publishAll(dir: string, nowMs: number): Promise<void> {
  const files = await readFiles(dir)
  const { living } = succession(rootsIn(dir, files), nowMs)
  await publish(
    dir,
    living.map(({ root }) => root),
    files.published,
  )
}

function viewOf({ root, signsFromMs, untilMs }: Heir, nowMs: number): RootView {
  const { top } = root
  const spki = top.publicKey.export({ type: 'spki', format: 'der' })
  return {
    pem: root.anchors,
    subject: top.subject,
    serial: top.serialNumber,
    fingerprint: top.fingerprint256,
    pin: createHash('sha256').update(spki).digest('base64'),
    validFrom: top.validFromDate,
    validTo: top.validToDate,
    names: root.constraints?.permitted,
    signsFrom: signsFromMs <= nowMs ? undefined : new Date(signsFromMs),
    trustedUntil: new Date(untilMs),
  }
}
