/** A CA certificate that agents are told to trust, as an operator sees it. */
export interface RootView {
  /** Certificate, PEM. */
  readonly pem: string
  readonly subject: string
  readonly serial: string
  /** SHA-256 of the certificate, `AB:CD:…`. */
  readonly fingerprint: string
  /** Base64 of the SHA-256 of its SubjectPublicKeyInfo, as Chromium's `--ignore-certificate-errors-spki-list` takes it. */
  readonly pin: string
  readonly validFrom: Date
  readonly validTo: Date
  /** Undefined: any. */
  readonly names: readonly string[] | undefined
  /** Undefined: it signs already. */
  readonly signsFrom: Date | undefined
  readonly trustedUntil: Date
}
