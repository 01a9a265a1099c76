/**
 * The lineage of a grant in the words of AWS, for its own log: task as session name, human as SourceIdentity, the rest as session
 * tags. AWS takes few characters there, so what does not fit is rewritten, and no two values ever become one. Pure.
 */
import { hash } from 'node:crypto'
import type { Grant } from '../../protocol/grant.ts'

/** Digits of the hash that keeps rewritten values apart: 132 bits. */
const HASH_LENGTH = 22

/** What names allow, without `=`, which marks a rewritten value: no value that passes as it is can look like one. */
const NAME = /^[\w+,.@-]{2,64}$/
const NOT_NAME = /[^\w+,.@-]/g
const TAG = /^[A-Za-z0-9 _.:/+\-@]{1,256}$/
const NOT_TAG = /[^A-Za-z0-9 _.:/+\-@]/g

export function sessionName({ task }: Pick<Grant, 'task'>): string {
  return NAME.test(task.id) ? task.id : rewritten(task.id, task.id, NOT_NAME, 64)
}

/** The same `sub` of two issuers is two humans, so the issuer is always in the hash. */
export function sourceIdentity({ human }: Pick<Grant, 'human'>): string {
  return rewritten(human.sub, JSON.stringify([human.iss, human.sub]), NOT_NAME, 64)
}

export function lineageTags({
  agent,
  task,
  lineageHash,
}: Pick<Grant, 'agent' | 'task' | 'lineageHash'>): Record<string, string> {
  return {
    'keyless:agent': tagValue(agent.id),
    'keyless:owner': tagValue(agent.owner),
    'keyless:task': tagValue(task.id),
    'keyless:lineage': tagValue(lineageHash),
  }
}

function tagValue(text: string): string {
  return TAG.test(text) ? text : rewritten(text, text, NOT_TAG, 256)
}

/** As much of the text as can be read there, and what tells it from every other. */
function rewritten(text: string, whole: string, foreign: RegExp, length: number): string {
  const readable = text.replace(foreign, '-').slice(0, length - HASH_LENGTH - 1)
  return `${readable}=${hash('sha256', whole, 'base64url').slice(0, HASH_LENGTH)}`
}
