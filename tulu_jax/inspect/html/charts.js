// Histograms, tables and bars.

/** A histogram as inline SVG. Bins are drawn equally wide, whatever their bounds. */
function histogram(edges, counts, { label, unit = "", log = false, trained = false } = {}) {
  const [width, height, left, bottom, top] = [420, 120, 40, 30, 8];
  const highest = Math.max(...counts, 1);
  const x = (bin) => left + (bin * (width - left - 6)) / counts.length;
  const y = (n) => top + (1 - n / highest) * (height - top - bottom);
  const total = counts.reduce((a, b) => a + b, 0);
  const svg = makeSvg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": `${label}: histogram of ${plural(total, "value")}, ${edges[0]} to ` +
      `${edges.at(-1)} ${unit}, fullest bin ${fullest(edges, counts)} ${unit}` });
  for (const n of [0, highest]) {
    svg.append(
      makeSvg("line", { class: "axis", x1: left, x2: width - 6, y1: y(n), y2: y(n) }),
      makeSvg("text", { x: left - 5, y: y(n) + 4, "text-anchor": "end" }, short(n)),
    );
  }
  counts.forEach((n, bin) => {
    const tip = `${edges[bin]} to ${edges[bin + 1]} ${unit}: ${count(n)} (${percent(n, total)})`;
    svg.append(makeSvg("g", { "data-tip": tip },
      makeSvg("rect", { class: `bin${trained ? " trained" : ""}`, x: x(bin) + 0.5, y: y(n),
        width: Math.max(1, x(bin + 1) - x(bin) - 1), height: y(0) - y(n) }),
      makeSvg("rect", { class: "hit", x: x(bin), y: top, width: x(bin + 1) - x(bin),
        height: y(0) - top }),
    ));
  });
  let free = -1e9;
  edges.forEach((edge, bin) => {
    const round = log ? Number.isInteger(Math.log2(edge)) || edge === 0 : true;
    if (!round || x(bin) < free) return;
    const last = bin === edges.length - 1;
    svg.append(makeSvg("text", { x: x(bin), y: height - bottom + 14,
      "text-anchor": last ? "end" : "middle" }, edge < 1e5 ? count(edge) : short(edge)));
    free = x(bin) + 34;
  });
  svg.append(makeSvg("text", { x: (left + width) / 2, y: height - 3, "text-anchor": "middle" }, unit));
  return svg;
}

function fullest(edges, counts) {
  const bin = counts.indexOf(Math.max(...counts));
  return `${edges[bin]} to ${edges[bin + 1]}`;
}

function sum(lists) {
  return lists[0].map((_, i) => lists.reduce((total, list) => total + list[i], 0));
}

/** A number of a table cell as text; text stays as it is. */
function cellText(value) {
  if (value === null) return "–";
  if (typeof value !== "number") return value;
  return Number.isInteger(value) ? count(value) : Number(value.toPrecision(3)).toLocaleString("en-US");
}

/** A table; `last` marks the last row as a total. */
function table(columns, rows, { last = false } = {}) {
  const numeric = columns.map((_, i) => rows.some((row) =>
    typeof row[i] === "number" || /^[<\d][\d.,\s]*%$/.test(row[i])));
  const kind = (i) => (numeric[i] ? "number" : null);
  const head = make("tr", {}, ...columns.map((name, i) =>
    make("th", { scope: "col", class: kind(i), dir: "auto" }, name)));
  const body = rows.map((row, r) => make("tr",
    { class: last && r === rows.length - 1 ? "total" : null },
    ...row.map((value, i) => make(i ? "td" : "th",
      { class: kind(i), scope: i ? null : "row", dir: "auto" }, cellText(value)))));
  return make("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "table" },
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

/** A horizontal bar of this share, with its text above. */
function meter(text, part, whole, style = "") {
  const fill = make("i");
  fill.style.width = `${whole ? (100 * part) / whole : 0}%`;
  return make("span", {}, text, make("span", { class: `meter ${style}`, "aria-hidden": "true" }, fill));
}

function bars(items, unit = "") {
  const most = Math.max(...items.map(([, n]) => n), 0);
  const rows = items.map(([label, n]) => make("tr", {},
    make("th", { scope: "row", dir: "auto" }, label),
    make("td", { class: "share" }, meter(`${cellText(n)} ${unit}`, n, most))));
  return make("div", { class: "scroll" }, make("table", {}, make("tbody", {}, ...rows)));
}
