/** The types of tasks.js, which the server's page and this one share: serve/bertport/serve/api/page. */

/** The row of a task: its boxes, what is asked, what the answer looks like, and examples. */
export interface TaskRow {
  readonly title: string;
  fields(mask: string | null): [name: string, title: string, rows: number, empty?: boolean][];
  inputs(texts: readonly string[]): unknown;
  parameters?(topK: number, texts: readonly string[]): Record<string, unknown>;
  view(answer: unknown, texts: readonly string[], bundle: { heads: readonly string[] }): Node[];
  examples(mask: string | null): string[][];
}

export const TASKS: Readonly<Record<string, TaskRow>>;
export function able(bundle: { tasks: readonly string[]; heads: readonly string[] }): string[];
