/** What the log is told of credentials. */
import type { Grant } from '../protocol/grant.ts'

export type Fields = Record<string, string | number | boolean | null>

export type LeaseKind =
  | 'lease.issued'
  | 'lease.renewed'
  | 'lease.failed'
  | 'lease.captured'
  | 'lease.revoked'
  | 'lease.warmed'

/** Under the grant that the credential is for: the entry has its whole chain of authority. */
export type RecordLease = (kind: LeaseKind, grant: Grant, fields: Fields) => Promise<unknown>
