// Browsing conversations: examples, and packed rows.

/** Words or letters of roles as a pattern over the letters s, u, a; null when there is none. */
function rolePattern(text) {
  const letters = text.replace(/system|user|assistant/g, (word) => word[0]).replace(/[\s,]/g, "");
  if (!letters) return null;
  if (!/^[sua.()|*+?{}0-9,[\]^]+$/.test(letters)) throw new SyntaxError("not a pattern of roles");
  return new RegExp(`^(?:${letters})$`);
}

class ConversationBrowser extends Browser {
  /** `items`: [{conversations: [numbers], label, entry(), draw(found)}]; the longest has `lengths`
   *  tokens. */
  constructor(panel, { what, items, lengths, note }) {
    super(panel, { what, items });
    this.cursor = null;
    this.place(legend(note), this.makeFilters(lengths));
  }

  makeFilters(lengths) {
    this.task = this.choice(option("", "all"),
      ...DATA.tasks.map((task, i) => option(String(i), task.name)));
    this.roles = this.input({ type: "text", placeholder: "(user assistant)+",
      title: "The roles of the whole conversation, as words or letters; ( ) | * + ? work" });
    this.least = this.input({ type: "number", min: 0, "aria-label": "fewest tokens",
      placeholder: "0" });
    this.most = this.input({ type: "number", min: 0, "aria-label": "most tokens",
      placeholder: String(lengths) });
    this.only = this.choice(option("", "all"), option("truncated", "cut"),
      option("dropped", "dropped"), option("kept", "neither"));
    this.cuts = make("input", { type: "checkbox",
      onchange: () => this.detail.classList.toggle("cuts", this.cuts.checked) });
    return this.makeRow(field("Dataset", this.task), field("Roles", this.roles),
      field("Tokens", this.least), field("to", this.most), field("Only", this.only),
      field("Token borders", this.cuts));
  }

  get fields() {
    return [this.search, this.roles, this.least, this.most, this.task, this.only];
  }

  /** What says of an item whether it passes the filters; null while one is no pattern. */
  filter(found) {
    const roles = this.pattern(this.roles, rolePattern);
    if (roles === undefined) return null;
    const least = Number(this.least.value || 0);
    const most = this.most.value === "" ? Infinity : Number(this.most.value);
    const passes = (number) => {
      const one = DATA.conversations[number];
      const n = one.tokens.length;
      const only = this.only.value;
      if (this.task.value !== "" && one.task !== Number(this.task.value)) return false;
      if (n < least || n > most || (roles && !roles.test(one.roles))) return false;
      if (only === "kept" ? one.truncated || one.dropped : only && !one[only]) return false;
      return matches(found, () => textOf(one));
    };
    return (item) => item.conversations.some(passes);
  }

  select(number, scroll = true) {
    this.cursor = null;
    super.select(number, scroll);
  }

  /** Moves the token cursor and says what stands there. */
  moveCursor(by) {
    const spans = [...this.detail.querySelectorAll("[data-i]")];
    if (!spans.length) return;
    const at = this.cursor ? spans.indexOf(this.cursor) + by : by > 0 ? 0 : spans.length - 1;
    this.cursor?.classList.remove("cursor");
    this.cursor = spans[Math.min(Math.max(at, 0), spans.length - 1)];
    this.cursor.classList.add("cursor");
    this.cursor.scrollIntoView({ block: "nearest" });
    const text = tokenTip(this.cursor);
    const box = this.cursor.getBoundingClientRect();
    showTip(text, box.left, box.bottom - 14);
    announce(text);
  }
}

/** Length, trained share and what is unusual about a conversation. */
function facts(one) {
  const trained = lossTokens(one);
  const roles = [...one.roles].map((letter) => ROLE_NAMES[letter]).join(" → ");
  return make("div", { class: "facts" },
    make("span", {}, DATA.tasks[one.task].name),
    make("span", {}, `${count(trained)} of ${plural(one.tokens.length, "token")} trained ` +
      `(${percent(trained, one.tokens.length)})`),
    make("span", {}, roles.length > 90 ? `${one.roles.length} messages` : roles),
    one.truncated ? make("span", { class: "badge" }, "cut at the longest length") : null,
    one.dropped ? make("span", { class: "badge" }, `dropped: ${one.dropped}`) : null);
}

function exampleItem(number) {
  const one = DATA.conversations[number];
  return {
    conversations: [number],
    label: one.id,
    entry: () => [
      make("div", { class: "id" }, make("b", { dir: "auto" }, one.id),
        make("span", {}, `${count(one.tokens.length)} tok`)),
      make("div", { class: "start", dir: "auto" }, visible(startOf(one))),
      strip([one], one.tokens.length)],
    draw: (found) => [make("h2", { dir: "auto" }, one.id), facts(one),
      strip([one], one.tokens.length, true), drawTokens(one, number, found)],
  };
}

function rowItem(row, place) {
  const all = row.segments.map((number) => DATA.conversations[number]);
  const filled = all.reduce((total, one) => total + one.tokens.length, 0);
  const trained = all.reduce((total, one) => total + lossTokens(one), 0);
  const label = `row ${count(place + 1)}`;
  return {
    conversations: row.segments,
    label,
    entry: () => [
      make("div", { class: "id" }, make("b", {}, label),
        make("span", {}, `${percent(filled, row.length)} full`)),
      make("div", { class: "start" }, plural(all.length, "conversation")),
      strip(all, row.length)],
    draw: (found) => drawRow(row, { all, filled, trained, label, found }),
  };
}

function drawRow(row, { all, filled, trained, label, found }) {
  let at = 0;
  const blocks = all.map((one, i) => {
    const from = at;
    at += one.tokens.length;
    return make("section", { class: "segment" },
      make("h3", {}, `Segment ${i + 1}`, make("span", { dir: "auto" }, one.id),
        make("span", {}, `row positions ${from} to ${at - 1}`)),
      facts(one), drawTokens(one, row.segments[i], found));
  });
  const left = row.length - filled;
  if (left) {
    blocks.push(make("section", { class: "segment padding" }, make("h3", {}, "Padding"),
      `${plural(left, "position")}, never read and never trained`));
  }
  return [make("h2", {}, label), make("div", { class: "facts" },
    make("span", {}, `${count(filled)} of ${count(row.length)} positions filled (${percent(filled, row.length)})`),
    make("span", {}, `${count(trained)} trained`),
    make("span", {}, `number ${count(row.number)} of the packing plan`),
    make("span", {}, all.length === 1 ? "1 conversation" : `${count(all.length)} conversations, each ` +
      "its own segment: attention and positions start anew at every border")), strip(all, row.length, true), ...blocks];
}
