// The first tab: what the mixture is made of. And the tab of checks that other commands fill.

function drawOverview(panel) {
  panel.append(composition(), counts(), distributions());
}

const totalOf = (key) => DATA.tasks.reduce((total, task) => total + task[key], 0);

function composition() {
  const columns = [["examples", "examples", ""], ["tokens", "tokens", ""],
    ["loss_tokens", "trained tokens", "trained"]];
  const head = make("tr", {}, make("th", { scope: "col" }, "dataset"),
    ...columns.map(([, name]) => make("th", { scope: "col" }, name)));
  const body = DATA.tasks.map((task) => make("tr", {},
    make("th", { scope: "row", dir: "auto" }, task.name),
    ...columns.map(([key, name, style]) => make("td", { class: "share",
      "data-tip": `${task.name}: ${count(task[key])} ${name}` },
    meter(`${short(task[key])} · ${percent(task[key], totalOf(key))}`, task[key], totalOf(key), style)))));
  return make("section", { class: "card" }, make("h2", {}, "Composition"),
    make("p", { class: "note" }, "Each dataset's share of the mixture, counted three ways. The " +
      "last column is what the model learns from: tokens that count in the loss."),
    make("div", { class: "scroll" }, make("table", { id: "composition" },
      make("thead", {}, head), make("tbody", {}, ...body))));
}

function counts() {
  const columns = ["dataset", "read", "upstream", "examples", "cut", "dropped", "tokens",
    "trained tokens", "trained", "median", "95 %", "longest"];
  const row = (name, task) => [name, task.read, task.expected, task.examples, task.truncated,
    Object.values(task.dropped).reduce((a, b) => a + b, 0), task.tokens, task.loss_tokens,
    percent(task.loss_tokens, task.tokens), task.median, task.p95, task.max];
  const rows = DATA.tasks.map((task) => row(task.name, task));
  if (rows.length > 1) {
    const sums = [1, 3, 4, 5, 6, 7].map((i) => [i, rows.reduce((total, r) => total + r[i], 0)]);
    const total = Array(columns.length).fill("");
    total[0] = "all";
    for (const [i, n] of sums) total[i] = n;
    total[8] = percent(total[7], total[6]);
    rows.push(total);
  }
  const notes = [];
  for (const task of DATA.tasks) {
    for (const [why, n] of Object.entries(task.dropped)) {
      notes.push(`${task.name}: ${count(n)} dropped, ${why}`);
    }
    for (const [why, n] of Object.entries(task.left_out)) {
      notes.push(`${task.name}: ${count(n)} left out by the reader, ${why}`);
    }
    for (const [why, n] of Object.entries(task.excluded)) {
      notes.push(`${task.name}: ${count(n)} excluded, ${why}`);
    }
    for (const line of task.notes) notes.push(`${task.name}: ${line}`);
    if (task.skipped) notes.push(`${task.name}: ${plural(task.skipped, "bad record")} skipped`);
  }
  return make("section", { class: "card" }, make("h2", {}, "Datasets"),
    table(columns, rows, { last: rows.length > 1 && DATA.tasks.length > 1 }),
    make("p", { class: "note" }, "read: conversations in the raw files; upstream: how many the " +
      "whole published dataset has; cut: shortened to the longest length allowed; dropped: left " +
      "out, as nothing of it would be trained; median, 95 % and longest are lengths in tokens."),
    ...notes.map((text) => make("p", {}, text)));
}

function distributions() {
  const grid = make("div", { class: "charts" });
  const one = (name, lengths, shares) => grid.append(make("b", { dir: "auto" }, name),
    histogram(DATA.lengths.edges, lengths, { label: `${name}, lengths`, unit: "tokens", log: true }),
    histogram(DATA.shares.edges, shares, { label: `${name}, trained share`,
      unit: "% of tokens trained", trained: true }));
  if (DATA.tasks.length > 1) one("all", sum(DATA.lengths.counts), sum(DATA.shares.counts));
  DATA.tasks.forEach((task, i) => one(task.name, DATA.lengths.counts[i], DATA.shares.counts[i]));
  return make("section", { class: "card" }, make("h2", {}, "Lengths and trained shares"),
    make("p", { class: "note" }, "How many conversations have so many tokens (bins grow with the " +
      "length: four to each doubling), and of how many so large a part is trained."), grid);
}

function drawChecks(panel) {
  for (const section of DATA.sections) {
    panel.append(make("section", { class: "card" }, make("h2", { dir: "auto" }, section.title),
      section.note ? make("p", { class: "note", dir: "auto" }, section.note) : null,
      ...section.blocks.flatMap((block) => [
        block.title ? make("h3", { dir: "auto" }, block.title) : null, drawBlock(block)])));
  }
}

function drawBlock(block) {
  switch (block.kind) {
    case "table": return table(block.columns, block.rows);
    case "bars": return bars(block.items, block.unit);
    case "histogram": return histogram(block.edges, block.counts,
      { label: block.title ?? "", unit: block.unit });
    case "text": return make("p", { dir: "auto" }, block.text);
    default: return make("div", {}, ...block.items.map(quote));
  }
}

function quote({ label, text }) {
  const words = make("blockquote", { dir: "auto" });
  fill(words, text);
  return make("figure", { class: "quote" }, make("figcaption", { dir: "auto" }, label), words);
}
