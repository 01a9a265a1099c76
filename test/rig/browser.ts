/** What a person does in a browser, without one: follows links and redirects, keeps cookies for each origin, and sends the form of a page. */

export interface Page {
  readonly url: URL
  readonly status: number
  readonly text: string
  readonly headers: Headers
}

export interface Browser {
  /** Follows redirects until a page comes, or `until` says that this is where it stops: then `text` is empty. */
  open(url: string | URL, until?: (url: URL) => boolean): Promise<Page>
  /** Sends the first form of a page with its hidden fields, as a browser does. @param fields typed by the person. */
  submit(page: Page, fields?: Record<string, string>, until?: (url: URL) => boolean): Promise<Page>
  /** Cookies that go to this URL. */
  cookies(url: string | URL): string
}

export function browser(): Browser {
  /** origin → name → value; no expiry, no paths: a walk lasts seconds */
  const jar = new Map<string, Map<string, string>>()
  const cookies = (url: string | URL) =>
    [...(jar.get(new URL(url).origin) ?? [])].map(([name, value]) => `${name}=${value}`).join('; ')
  async function go(url: URL, init: RequestInit, until: (url: URL) => boolean): Promise<Page> {
    if (until(url)) return { url, status: 0, text: '', headers: new Headers() }
    const answer = await fetch(url, { ...init, redirect: 'manual', headers: { ...init.headers, cookie: cookies(url) } })
    const own = jar.get(url.origin) ?? new Map<string, string>()
    jar.set(url.origin, own)
    for (const cookie of answer.headers.getSetCookie()) {
      const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(cookie) ?? []
      if (value === '') own.delete(name)
      else own.set(name, value)
    }
    const location = answer.headers.get('location')
    const text = await answer.text()
    if (location === null || answer.status < 300 || answer.status > 399)
      return { url, status: answer.status, text, headers: answer.headers }
    return go(new URL(location, url), { headers: { 'sec-fetch-site': 'cross-site' } }, until)
  }
  const never = () => false
  return {
    cookies,
    open: (url, until = never) => go(new URL(url), {}, until),
    submit(page, fields = {}, until = never) {
      const form = /<form[\s\S]*?<\/form>/.exec(page.text)?.[0] ?? page.text
      const action = /<form[^>]*\saction="([^"]*)"/.exec(form)?.[1]
      const hidden = [...form.matchAll(/<input[^>]*type="hidden"[^>]*>/g)].map(([tag]) => [
        /name="([^"]*)"/.exec(tag)?.[1] ?? '',
        /value="([^"]*)"/.exec(tag)?.[1] ?? '',
      ])
      const headers = { origin: page.url.origin, 'sec-fetch-site': 'same-origin' }
      const body = new URLSearchParams({ ...Object.fromEntries(hidden), ...fields })
      return go(new URL(action ?? page.url, page.url), { method: 'POST', body, headers }, until)
    },
  }
}
