/** Builders for the policy tests: one override each. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { onTestFinished } from 'vitest'
import {
  type Catalogue,
  type CatalogueSource,
  loadCatalogue,
  type ServiceFile,
} from '../../gateway/policy/catalogue/catalogue.ts'
import { type Bundle, loadBundle } from '../../gateway/policy/source/bundle.ts'
import type { Ask } from '../../gateway/protocol/decision.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import type { Inbound } from '../../gateway/protocol/message.ts'

export const policiesDir = fileURLToPath(new URL('../../policies', import.meta.url))
export const shippedDir = join(policiesDir, 'services')
export const allServices = ['github', 'gitlab', 'openai', 'anthropic', 'slack', 'stripe', 'demo']

export function catalogueOf(...services: CatalogueSource['services'][number][]): Promise<Catalogue> {
  return loadCatalogue({ services, shippedDir, baseDir: policiesDir })
}

/** A small service with one operation of each kind. */
export function notesFile(override: Partial<ServiceFile> = {}): ServiceFile {
  return {
    name: 'notes',
    title: 'Notes',
    hosts: ['notes.test', 'files.notes.test'],
    ports: [443, 8443],
    slots: [{ in: 'header', name: 'authorization', prefix: 'Bearer ' }],
    operations: {
      'notes.list': { match: ['GET /notes'], access: 'read' },
      'notes.read': { match: ['GET /notes/{id}'], access: 'read', sensitivity: 'confidential' },
      'notes.write': { match: ['PUT /notes/{id}', 'POST /notes'], access: 'write' },
      'notes.delete': { match: ['DELETE /notes/{id}'], access: 'write', irreversible: true },
      'token.mint': { match: ['POST /token'], access: 'write', returns_secret: true },
      'settings.write': { match: ['PUT /settings'], access: 'admin' },
    },
    ...override,
  }
}

export function inbound(override: Partial<Inbound> = {}): Inbound {
  return {
    id: '0198f0c2-0000-7000-8000-000000000000',
    tenant: 'default',
    mode: 'intercept',
    method: 'GET',
    scheme: 'https',
    host: 'notes.test',
    port: 443,
    rawPath: '/notes',
    rawHeaders: [],
    hostHeader: undefined,
    presented: null,
    client: { address: '127.0.0.1', userAgent: undefined },
    body: null,
    reply: {} as Inbound['reply'],
    ...override,
  }
}

export function grant(override: Partial<Grant> = {}): Grant {
  return {
    id: 'grant-1',
    tenant: 'default',
    human: { iss: 'local:test', sub: 'ana' },
    agent: { id: 'spiffe://acme.test/agents/triage', owner: 'ana@acme.test', purpose: 'triage', riskTier: 'low' },
    task: { id: 'task-1', purpose: 'triage ticket 42' },
    authority: [{ operations: ['notes:*', 'demo:*', 'unmanaged:*'] }],
    issuedAt: 1_700_000_000,
    expiresAt: 1_700_000_900,
    lineage: [
      { n: 0, type: 'human', id: 'ana' },
      { n: 1, type: 'ai_agent', id: 'spiffe://acme.test/agents/triage', grant: 'grant-1' },
    ],
    lineageHash: '',
    depth: 0,
    maxDepth: 3,
    delegable: true,
    ancestry: [],
    attestations: [],
    ...override,
  }
}

export function ask(catalogue: Catalogue, request: Partial<Inbound> = {}, override: Partial<Ask> = {}): Ask {
  const from = inbound(request)
  return {
    grant: grant(),
    endpoint: catalogue.locate(from),
    method: from.method,
    rawPath: from.rawPath,
    sourceAddress: '127.0.0.1',
    nowMs: 1_700_000_000_000,
    ...override,
  }
}

/** A bundle of the policies given as text, written to a directory that goes away with the test. */
export async function bundleOf(catalogue: Catalogue, files: Readonly<Record<string, string>>): Promise<Bundle> {
  return loadBundle({ paths: [await policyDir(files)], catalogue })
}

export async function policyDir(files: Readonly<Record<string, string>>): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-policy-'))
  onTestFinished(() => rm(dir, { recursive: true }))
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text)
  return dir
}

export function permit(id: string, scope: string, rest = ''): string {
  return `@id("${id}") @owner("test") permit (${scope})${rest};\n`
}
