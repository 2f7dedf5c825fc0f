/** The types of views.js, which the server's page and this one share: serve/bertport/serve/api/page. */

export function element<K extends keyof HTMLElementTagNameMap>(
  name: K,
  properties?: Partial<HTMLElementTagNameMap[K]>,
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K];
