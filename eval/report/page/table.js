// The first tab: the table of all numbers, which sorts and turns, and the words about it.

function drawOverview(panel) {
  const holder = make("div");
  let turned = DATA.sources.length > 6;
  const redraw = () => holder.replaceChildren(resultsTable(turned));
  const turn = make("button", { type: "button", id: "turn", onclick: () => { turned = !turned; redraw(); } },
    "Swap rows and columns");
  redraw();
  panel.append(make("section", { class: "card" },
    make("div", { class: "bar" }, make("h2", {}, "Results"), turn), holder,
    ...DATA.notes.map((text) => line("note", text))));
  if (DATA.warnings.length) {
    panel.append(make("section", { class: "card warnings" }, make("h2", {}, "To know before comparing"),
      ...DATA.warnings.map((text) => line("", text))));
  }
  panel.append(skills());
}

/** A paragraph of any text. */
function line(style, text) {
  const paragraph = make("p", { class: style || null, dir: "auto" });
  fill(paragraph, text);
  return paragraph;
}

/** Text of any kind in an element of this class. */
function words(name, style, text) {
  const element = make(name, { class: style || null, dir: "auto" });
  element.append(visible(text));
  return element;
}

function resultsTable(turned) {
  const tasks = DATA.lines.map(({ title, lower }) => ({ title: lower ? `${title} ↓` : title,
    tip: lower ? "lower is better" : null }));
  const sources = DATA.sources.map(({ name, paper, dataset }) => ({
    title: paper ? `paper: ${name}` : name, paper, tip: dataset ? `trained on ${dataset}` : null }));
  const cell = turned ? (r, c) => DATA.lines[c].cells[r] : (r, c) => DATA.lines[r].cells[c];
  const [rows, columns] = turned ? [sources, tasks] : [tasks, sources];
  const order = rows.map((_, i) => i);
  let sorted = null;
  const body = make("tbody");
  const heads = columns.map((column, c) => make("th", { scope: "col", class: "number" },
    make("button", { type: "button", class: "sort", "data-tip": column.tip, dir: "auto",
      onclick: () => sortBy(c) }, visible(column.title))));
  const first = make("th", { scope: "col" }, make("button", { type: "button", class: "sort",
    onclick: () => sortBy(-1) }, turned ? "model" : "benchmark"));

  function sortBy(column) {
    sorted = { column, down: sorted?.column === column ? !sorted.down : column >= 0 };
    const value = (r) => (column < 0 ? r : cell(r, column)?.value ?? -Infinity);
    order.sort((a, b) => (sorted.down ? value(b) - value(a) : value(a) - value(b)) || a - b);
    [first, ...heads].forEach((head, i) => {
      if (i - 1 === column) head.setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    draw();
  }

  function draw() {
    body.replaceChildren(...order.map((r) => make("tr", { class: rows[r].paper ? "paper" : null },
      make("th", { scope: "row", dir: "auto", "data-tip": rows[r].tip }, visible(rows[r].title)),
      ...columns.map((column, c) => drawCell(cell(r, c), column.paper)))));
  }

  draw();
  return make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "results" },
    make("table", { id: "results" }, make("thead", {}, make("tr", {}, first, ...heads)), body));
}

function drawCell(cell, paper) {
  if (!cell) return make("td", { class: "number" }, "–");
  const { shown, stderr, n, tied, difference } = cell;
  return make("td", { class: `number${tied ? " tied" : ""}${paper ? " paper" : ""}` },
    make("span", { class: "value" }, shown),
    stderr === null ? null : make("span", { class: "error" }, ` ±${stderr.toFixed(1)}`),
    tied ? make("span", { class: "mark" }, "†") : null,
    difference ? make("span", { class: `difference ${difference.good ? "good" : "bad"}` +
      (difference.found ? " found" : ""), "data-tip": `p = ${(difference.p ?? NaN).toPrecision(2)} (Holm)` },
    ` ${difference.shown}${difference.found ? "*" : ""}`) : null,
    make("span", { class: "n" }, `n ${count(n)}`));
}
