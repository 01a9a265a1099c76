/**
 * Does a text hold somebody's credential? The patterns are secretlint's, kept by others; each rule is made once and called in
 * process. Rules that a text could switch off by a comment are left out.
 */

/** @returns ids of the rules that found something, each once: `github`, `aws`, `privatekey`. */
export type SecretRules = (text: string) => readonly string[]

interface Rule {
  readonly id: string
  check(source: object): unknown
}

/** Takes tenths of a second, once: only for a gateway whose policies ask for it. */
export async function loadSecretRules(): Promise<SecretRules> {
  const { rules } = await import('@secretlint/secretlint-rule-preset-recommend')
  let found: Set<string> = new Set()
  const made: Rule[] = rules
    .filter(({ meta }) => meta.supportedContentTypes.includes('text') && !meta.id.endsWith('-filter-comments'))
    .map((creator) => {
      const id = creator.meta.id.replace(/^@secretlint\/secretlint-rule-/, '')
      // What a rule says of its finding quotes it: only that there is one is taken.
      const context = {
        createTranslator: () => (messageId: string) => ({ messageId, message: '' }),
        ignore: () => undefined,
        report: () => void found.add(id),
      }
      const { file } = creator.create(context as never, {})
      return { id, check: (source) => file?.(source as never) }
    })
  return (content) => {
    found = new Set()
    const source = { filePath: 'request', ext: '', contentType: 'text', hasBOM: false, content }
    for (const rule of made) rule.check(source)
    return [...found]
  }
}
