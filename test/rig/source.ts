/**
 * Reads TypeScript as far as the architecture test needs: comments away, strings kept apart, imports found. A full parser
 * is not at hand (the compiler is a native program), and is not needed: the scanner knows strings, templates, regular
 * expressions and comments, and everything else is plain text.
 */

export interface Source {
  /** Path from the repository's root, with `/`. */
  readonly path: string
  readonly text: string
  /** The text without comments and with every string, template and regular expression emptied: `''`. */
  readonly code: string
  readonly imports: readonly Import[]
}

export interface Import {
  readonly from: string
  /** True for `import type` and `export type … from`; inline `type` markers count as values, they load the module. */
  readonly typeOnly: boolean
  /** What stands between `import` and `from`. */
  readonly names: string
}

/** A private-use character, so that it cannot occur in our sources. */
const STRING_MARK = '\uE000'
const COMMENT = /^\/[/*]/
const REGEX_MAY_FOLLOW = /(?:[=(,:;!&|?{}[+\-*%<>~^]|\b(?:return|typeof|case|in|of|void|delete|await|yield))\s*$/

export function readSource(path: string, text: string): Source {
  const { marked, strings } = scan(text)
  return { path, text, code: marked.replaceAll(/\uE000\d+\uE000/g, "''"), imports: findImports(marked, strings) }
}

/** Comments become a space, strings become numbered marks. */
function scan(text: string): { marked: string; strings: string[] } {
  const strings: string[] = []
  let marked = ''
  let at = 0
  while (at < text.length) {
    const end = endOfToken(text, at, marked)
    if (end === at) {
      marked += text.charAt(at++)
      continue
    }
    const inner = text.slice(at + 1, end - 1)
    if (COMMENT.test(text.slice(at, at + 2))) marked += ' '
    else marked += `${STRING_MARK}${strings.push(inner) - 1}${STRING_MARK}${text[at] === '`' ? codeInside(inner) : ''}`
    at = end
  }
  return { marked, strings }
}

/** Index after the comment, string, template or regular expression at `at`; `at` itself where none begins. */
function endOfToken(text: string, at: number, before: string): number {
  const two = text.slice(at, at + 2)
  const one = text.charAt(at)
  if (two === '//') return indexOrEnd(text, '\n', at)
  if (two === '/*') return indexOrEnd(text, '*/', at + 2) + 2
  if (one === "'" || one === '"') return endOfQuoted(text, at, one)
  if (one === '`') return endOfTemplate(text, at)
  return one === '/' && REGEX_MAY_FOLLOW.test(before.slice(-40)) ? endOfRegex(text, at) : at
}

function findImports(marked: string, strings: readonly string[]): Import[] {
  const found: Import[] = []
  const statement =
    /(?<![.\w$])(import|export)\b(?!\s*\()([^\uE000;()=]*?)(?:\bfrom\s*)?\uE000(\d+)\uE000|\bimport\s*\(\s*\uE000(\d+)\uE000/g
  for (const match of marked.matchAll(statement)) {
    const names = (match[2] ?? '').trim()
    if (match[1] === 'export' && !/\bfrom\s*$/.test(match[0].slice(0, match[0].indexOf(STRING_MARK)))) continue
    const from = strings[Number(match[3] ?? match[4])]
    if (from !== undefined) found.push({ from, names, typeOnly: /^type\b(?!\s*(?:,|from\b))/.test(names) })
  }
  return found
}

function indexOrEnd(text: string, what: string, from: number): number {
  const at = text.indexOf(what, from)
  return at === -1 ? text.length : at
}

function endOfQuoted(text: string, start: number, quote: string): number {
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === '\\') at++
    else if (text[at] === quote || text[at] === '\n') return at + 1
  }
  return text.length
}

function endOfRegex(text: string, start: number): number {
  let inClass = false
  for (let at = start + 1; at < text.length; at++) {
    const one = text[at]
    if (one === '\\') at++
    else if (one === '[') inClass = true
    else if (one === ']') inClass = false
    else if ((one === '/' && !inClass) || one === '\n') return at + 1
  }
  return text.length
}

function endOfTemplate(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at++) {
    if (text[at] === '\\') at++
    else if (text[at] === '`') return at + 1
    else if (text[at] === '$' && text[at + 1] === '{') at = endOfSubstitution(text, at + 2) - 1
  }
  return text.length
}

/** Index after the `}` that closes a `${`, whose first inner character is at `start`. */
function endOfSubstitution(text: string, start: number): number {
  let depth = 1
  for (let at = start; at < text.length; at++) {
    const one = text.charAt(at)
    if (one === "'" || one === '"') at = endOfQuoted(text, at, one) - 1
    else if (one === '`') at = endOfTemplate(text, at) - 1
    else if (one === '{') depth++
    else if (one === '}' && --depth === 0) return at + 1
  }
  return text.length
}

/** The code within the `${…}` of a template: it runs, so rules about calls hold for it too. */
function codeInside(template: string): string {
  let code = ''
  for (let at = 0; at < template.length; at++) {
    if (template[at] === '\\') at++
    else if (template[at] === '$' && template[at + 1] === '{') {
      const end = endOfSubstitution(template, at + 2)
      code += ` (${scan(template.slice(at + 2, end - 1)).marked.replaceAll(/\uE000\d+\uE000/g, "''")}) `
      at = end - 1
    }
  }
  return code
}
