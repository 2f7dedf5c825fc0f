// What answers look like: bars, a ranked list, and marks in a text.

export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

// A table with a bar for each row, of { word, score, title }. `full` is the score of a whole bar, or else the greatest.
export function bars(rows, { title = "", full, ranked = false } = {}) {
  const most = full ?? Math.max(...rows.map((row) => Math.abs(row.score)), 1e-9);
  const body = rows.map((row, index) => {
    const bar = element("div", { className: row.score < 0 ? "bar negative" : "bar" });
    bar.style.width = `${Math.min(100, (100 * Math.abs(row.score)) / most)}%`;
    return element("tr", { title: row.title ?? row.word },
      ...(ranked ? [element("td", { className: "rank", textContent: `${index + 1}.` })] : []),
      element("td", { className: "word", textContent: row.word }),
      element("td", {}, element("div", { className: "track", ariaHidden: "true" }, bar)),
      element("td", { className: "score", textContent: row.score.toFixed(4) }));
  });
  return [...heading(title), element("table", {}, element("tbody", {}, ...body))];
}

export const heading = (title) => (title ? [element("h3", { textContent: title })] : []);

// Bars whose scores are shares of one, wherever they are: of a regression they are as long as the greatest.
export const shares = (rows, options) => bars(rows, { full: rows.every(({ score }) => score >= 0 && score <= 1) ? 1 : undefined, ...options });

// A text with its spans marked, of { start, end, label, score }: characters as the server counts them, by code points.
export function marked(text, spans) {
  const characters = Array.from(text);
  const parts = [];
  let at = 0;
  for (const { start, end, label, score } of [...spans].sort((a, b) => a.start - b.start)) {
    if (start < at || end <= start) continue; // one that overlaps is in the table below
    parts.push(characters.slice(at, start).join(""));
    const mark = element("mark", { title: score.toFixed(4) }, characters.slice(start, end).join(""));
    if (label) mark.append(element("small", { textContent: label }));
    mark.style.setProperty("--hue", hue(label ?? ""));
    parts.push(mark);
    at = end;
  }
  return element("p", { className: "marked" }, ...parts, characters.slice(at).join(""));
}

// A colour for a label, the same wherever it is.
function hue(label) {
  let value = 0;
  for (const character of label) value = (31 * value + character.codePointAt(0)) % 997;
  return String((value * 137) % 360);
}
