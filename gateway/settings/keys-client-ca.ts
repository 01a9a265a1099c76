/**
 * The client CA on disk: `client-ca.key` is the first root, `client-ca.1.key` its successor, and so on, each a key with its certificate,
 * written once and whole. `client-ca.pem` is made of them, for upstreams to trust. Made when a certificate is first asked for, or by
 * `keyless ca client`. Replicas share the directory; whoever comes first decides.
 */
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createOnce, makePrivate, readIfThere, replace, syncDirectory } from '../private-file.ts'
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Certified, ClientRoot, ClientTerms } from '../provider/client-authority.ts'

const NAME = /^client-ca(?:\.([1-9]\d{0,5}))?\.key$/
/** Upstreams get this long to learn of a new root before it signs. */
const ANNOUNCED_MS = 86_400_000

/** A root, and whether it is the one that signs now. */
export interface StoredClientRoot extends ClientRoot {
  readonly isSigning: boolean
  readonly signsFromMs: number
}

/** Signs with the newest root that upstreams had time to learn of. */
export function certifyingIn(dir: string, clock: Clock): (terms: Omit<ClientTerms, 'nowMs'>) => Promise<Certified> {
  return async (terms) => {
    const { certifyClient } = await import('../provider/client-authority.ts')
    const root = await signingRoot(dir, clock.nowMs())
    return certifyClient(root, { ...terms, nowMs: clock.nowMs() })
  }
}

async function signingRoot(dir: string, nowMs: number): Promise<ClientRoot> {
  try {
    const roots = await openClientRoots(dir, nowMs)
    const root = roots.find(({ isSigning }) => isSigning)
    if (root !== undefined) return root
    throw new Error('every root has ended')
  } catch (cause) {
    throw new GatewayError(
      'credential_unconfigured',
      'The client CA of the gateway can be neither read nor made. See "keyless ca client", and make a new one with "keyless ca client --rotate".',
      { cause },
    )
  }
}

/** All roots, the oldest first; the first one is made if there is none. @throws {Error} naming the file that is wrong. */
export async function openClientRoots(dir: string, nowMs: number): Promise<readonly StoredClientRoot[]> {
  const present = await readRoots(dir)
  if (present.length > 0) return withSigner(present, nowMs)
  await addRoot(dir, 0, nowMs)
  return withSigner(await readRoots(dir), nowMs)
}

/** Adds a root, which signs a day later. Upstreams get `client-ca.pem` meanwhile. */
export async function rotateClientRoots(dir: string, nowMs: number): Promise<void> {
  const roots = await readRoots(dir)
  await addRoot(dir, (roots.at(-1)?.number ?? -1) + 1, nowMs)
}

/** The same as an operator sees them. */
export async function viewClientRoots(dir: string, nowMs: number) {
  return (await openClientRoots(dir, nowMs)).map(({ certificate, isSigning, signsFromMs }) => ({
    pem: certificate.toString(),
    subject: certificate.subject,
    fingerprint: certificate.fingerprint256,
    isSigning,
    signsFrom: new Date(signsFromMs),
    validTo: certificate.validToDate,
  }))
}

interface NumberedRoot extends ClientRoot {
  readonly number: number
}

async function addRoot(dir: string, number: number, nowMs: number): Promise<void> {
  const { makeClientRoot } = await import('../provider/client-authority.ts')
  await createOnce(join(dir, fileOf(number)), await makeClientRoot(nowMs))
  await syncDirectory(dir)
  const roots = await readRoots(dir)
  const published = roots.filter(({ certificate }) => certificate.validToDate.getTime() > nowMs)
  await replace(join(dir, 'client-ca.pem'), published.map(({ certificate }) => certificate.toString()).join(''), 0o644)
}

function fileOf(number: number): string {
  return number === 0 ? 'client-ca.key' : `client-ca.${number}.key`
}

async function readRoots(dir: string): Promise<readonly NumberedRoot[]> {
  const { readClientRoot } = await import('../provider/client-authority.ts')
  await makePrivate(dir)
  const names = (await readdir(dir)).map((name) => NAME.exec(name)).filter((match) => match !== null)
  const numbers = names.map(([, number]) => Number(number ?? 0)).sort((a, b) => a - b)
  const roots: NumberedRoot[] = []
  for (const number of numbers) {
    const text = await readIfThere(join(dir, fileOf(number)))
    if (text === undefined) continue
    try {
      roots.push({ number, ...readClientRoot(text.toString()) })
    } catch (cause) {
      throw new Error(
        `${join(dir, fileOf(number))} cannot be used: it holds no P-256 key with its CA certificate. Restore it, or remove it to have a new one made.`,
        { cause },
      )
    }
  }
  return roots
}

/** The first signs at once: before it, there was nothing to trust. */
function withSigner(roots: readonly NumberedRoot[], nowMs: number): readonly StoredClientRoot[] {
  const timed = roots.map((root, i) => {
    const madeMs = root.certificate.validFromDate.getTime()
    return { ...root, signsFromMs: i === 0 ? madeMs : madeMs + ANNOUNCED_MS }
  })
  const isUsable = ({ certificate, signsFromMs }: (typeof timed)[number]) =>
    signsFromMs <= nowMs && certificate.validToDate.getTime() > nowMs
  const signing = timed.findLast(isUsable)
  return timed.map((root) => ({ ...root, isSigning: root === signing }))
}
