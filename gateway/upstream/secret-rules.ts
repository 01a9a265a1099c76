/**
 * Does a text hold somebody's credential? The patterns are secretlint's, kept by others; each rule is made once and called in
 * process. Rules that a text could switch off by a comment are left out.
 */

/** @returns ids of the rules that found something, each once: `github`, `aws`, `privatekey`. */
export type SecretRules = (text: string) => readonly string[]

/** Where what a rule found begins and ends in the text. */
export interface SecretPlace {
  readonly rule: string
  readonly start: number
  readonly end: number
}

/** @returns every place that a rule found. */
export type SecretFinder = (text: string) => readonly SecretPlace[]

interface Rule {
  readonly id: string
  check(source: object): unknown
}

/** Takes tenths of a second, once: only for a gateway whose policies ask for it. */
export async function loadSecretRules(): Promise<SecretRules> {
  const find = await loadSecretFinder()
  return (content) => [...new Set(find(content).map(({ rule }) => rule))]
}

/** The same with places, for who has to show them. */
export async function loadSecretFinder(): Promise<SecretFinder> {
  const { rules } = await import('@secretlint/secretlint-rule-preset-recommend')
  let found: SecretPlace[] = []
  const made: Rule[] = rules
    .filter(({ meta }) => meta.supportedContentTypes.includes('text') && !meta.id.endsWith('-filter-comments'))
    .map((creator) => {
      const rule = creator.meta.id.replace(/^@secretlint\/secretlint-rule-/, '')
      // What a rule says of its finding quotes it: only where it is is taken.
      const context = {
        createTranslator: () => (messageId: string) => ({ messageId, message: '' }),
        ignore: () => undefined,
        report: ({ range: [start, end] }: { readonly range: readonly [number, number] }) =>
          void found.push({ rule, start, end }),
      }
      const { file } = creator.create(context as never, {})
      return { id: rule, check: (source) => file?.(source as never) }
    })
  return (content) => {
    found = []
    const source = { filePath: 'request', ext: '', contentType: 'text', hasBOM: false, content }
    for (const rule of made) rule.check(source)
    return found
  }
}
