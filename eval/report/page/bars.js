// Bars of what models scored: by skill over the tasks, and by group inside a task.

const COLOURS = 8;

/** The colour of a source: models by their number, the paper's rows hollow. */
function barClass(source) {
  return DATA.sources[source].paper ? "bar paper" : `bar m${source % COLOURS}`;
}

const shortened = (text, most) => {
  const shown = visible(text);
  return shown.length > most ? `${shown.slice(0, most - 1)}…` : shown;
};

/** Horizontal bars as inline SVG: a block a line, a bar a source, a whisker of two errors. */
function barChart(lines, label) {
  const [width, left, right, thick, gap] = [720, 190, 64, 11, 12];
  const most = Math.max(1, ...lines.flatMap(({ cells }) => cells.map((cell) =>
    (cell ? cell.value + 1.96 * (cell.stderr ?? 0) : 0))));
  const top = most > 60 ? 100 : Math.ceil(most / 10) * 10;
  const x = (value) => left + (Math.max(value, 0) * (width - left - right)) / Math.max(top, most);
  const parts = [];
  let y = 18;
  for (const { title, cells } of lines) {
    const shown = cells.map((cell, i) => [cell, i]).filter(([cell]) => cell);
    if (!shown.length) continue;
    parts.push(makeSvg("text", { x: left - 8, y: y + (shown.length * thick) / 2 + 4,
      "text-anchor": "end", class: "label" }, shortened(title, 30)));
    for (const [cell, i] of shown) {
      parts.push(bar(cell, i, title, { x, y, thick, left }));
      y += thick;
    }
    y += gap;
  }
  const grid = [0, 0.25, 0.5, 0.75, 1].map((part) => part * top).flatMap((value) => [
    makeSvg("line", { class: "axis", x1: x(value), x2: x(value), y1: 14, y2: y }),
    makeSvg("text", { x: x(value), y: 10, "text-anchor": "middle" }, String(Number(value.toFixed(1))))]);
  return makeSvg("svg", { class: "chart bars", viewBox: `0 0 ${width} ${y}`, role: "img",
    "aria-label": label }, ...grid, ...parts);
}

function bar(cell, source, title, { x, y, thick, left }) {
  const { name } = DATA.sources[source];
  const error = cell.stderr === null ? "" : ` ±${cell.stderr.toFixed(1)}`;
  const reach = 1.96 * (cell.stderr ?? 0);
  const middle = y + thick / 2;
  const group = makeSvg("g", { "data-tip": `${visible(title)}\n${visible(name)}: ` +
    `${cell.shown}${error} (n ${count(cell.n)})` },
  makeSvg("rect", { class: barClass(source), x: left, y: y + 1, height: thick - 2,
    width: Math.max(1, x(cell.value) - left) }));
  if (reach) {
    group.append(makeSvg("line", { class: "whisker", x1: x(cell.value - reach),
      x2: x(cell.value + reach), y1: middle, y2: middle }));
  }
  group.append(makeSvg("text", { x: x(cell.value + reach) + 4, y: middle + 4, class: "value" },
    cell.shown));
  return group;
}

/** Which colour is which model. */
function colours(sources) {
  return make("div", { class: "colours" }, ...sources.map((i) => make("span", {},
    makeSvg("svg", { viewBox: "0 0 12 12", width: 12, height: 12, "aria-hidden": "true" },
      makeSvg("rect", { class: barClass(i), x: 1, y: 1, width: 10, height: 10 })),
    words("span", "", `${DATA.sources[i].paper ? "paper: " : ""}${DATA.sources[i].name}`))));
}

function skills() {
  const all = DATA.sources.map((_, i) => i);
  const section = make("section", { class: "card" }, make("h2", {}, "By skill"),
    line("note", "Bars with the range of two standard errors; the paper's numbers are hollow."),
    colours(all));
  const names = [...new Set(DATA.lines.map(({ skill }) => skill))];
  for (const skill of names) {
    const lines = DATA.lines.filter((one) => one.skill === skill);
    section.append(make("h3", {}, skill), barChart(lines.map(({ title, lower, cells }) => ({
      title: lower ? `${title} (lower is better)` : title, cells })), `${skill}, bars by model`));
  }
  return section;
}

function drawGroups(panel) {
  for (const { task, title } of DATA.lines.filter((one) => DATA.groups[one.task])) {
    const groups = DATA.groups[task];
    panel.append(make("section", { class: "card" }, words("h2", "", title),
      colours(DATA.models.map((_, i) => i)),
      groups.length < DATA.most ? "" : line("note", `Of many groups the first ${DATA.most}.`),
      barChart(groups.map(({ name, cells }) => ({ title: name, cells })), `${title}, bars by group`)));
  }
}
