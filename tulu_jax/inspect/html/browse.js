// A list with filters on the left, what is chosen on the right: examples, and packed rows.

const PAGE = 200;

/** Words or letters of roles as a pattern over the letters s, u, a; null when there is none. */
function rolePattern(text) {
  const letters = text.replace(/system|user|assistant/g, (word) => word[0]).replace(/[\s,]/g, "");
  if (!letters) return null;
  if (!/^[sua.()|*+?{}0-9,[\]^]+$/.test(letters)) throw new SyntaxError("not a pattern of roles");
  return new RegExp(`^(?:${letters})$`);
}

/** The text itself, or the regular expression between slashes; null when there is none. */
function searchPattern(text) {
  if (!text) return null;
  const expression = /^\/.+\/$/s.test(text) ? text.slice(1, -1)
    : text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(expression, "gimu");
}

class Browser {
  /** `items`: [{conversations: [numbers], label, draw(found)}], each an entry of the list. */
  constructor(panel, { what, items, lengths, note }) {
    Object.assign(this, { panel, what, items, shown: items, selected: 0, drawn: 0, found: null });
    this.list = make("ul", { class: "list", role: "listbox", tabindex: "0",
      "aria-label": `${what}s`, onclick: (event) => this.click(event) });
    this.detail = make("article", { class: "detail card", tabindex: "-1", "aria-live": "off" });
    this.status = make("span", { class: "note", role: "status" });
    panel.append(legend(note), this.makeFilters(lengths),
      make("div", { class: "browse" }, this.list, this.detail));
    this.apply();
  }

  makeFilters(lengths) {
    const again = () => { clearTimeout(this.timer); this.timer = setTimeout(() => this.apply(), 120); };
    const field = (label, element) => make("label", {}, label, element);
    const input = (properties) => make("input", { oninput: again, ...properties });
    const option = (value, text) => make("option", { value }, text);
    this.search = input({ type: "search", placeholder: "text, or /regular expression/",
      "aria-label": "Search in the text", spellcheck: "false", dir: "auto" });
    this.task = make("select", { onchange: again }, option("", "all"),
      ...DATA.tasks.map((task, i) => option(String(i), task.name)));
    this.roles = input({ type: "text", placeholder: "(user assistant)+", spellcheck: "false",
      title: "The roles of the whole conversation, as words or letters; ( ) | * + ? work" });
    this.least = input({ type: "number", min: 0, "aria-label": "fewest tokens", placeholder: "0" });
    this.most = input({ type: "number", min: 0, "aria-label": "most tokens",
      placeholder: String(lengths) });
    this.only = make("select", { onchange: again }, option("", "all"),
      option("truncated", "cut"), option("dropped", "dropped"), option("kept", "neither"));
    this.cuts = make("input", { type: "checkbox",
      onchange: () => this.detail.classList.toggle("cuts", this.cuts.checked) });
    const reset = make("button", { type: "button", onclick: () => this.reset() }, "Reset");
    return make("form", { class: "filters", role: "search", onsubmit: (e) => e.preventDefault() },
      field("Search", this.search), field("Dataset", this.task), field("Roles", this.roles),
      field("Tokens", this.least), field("to", this.most), field("Only", this.only),
      field("Token borders", this.cuts), reset, this.status);
  }

  reset() {
    for (const field of [this.search, this.roles, this.least, this.most, this.task, this.only]) {
      field.value = "";
    }
    this.apply();
  }

  /** A field's pattern; a broken one marks the field and keeps the filter as it was. */
  pattern(field, parse) {
    try {
      const pattern = parse(field.value.trim());
      field.removeAttribute("aria-invalid");
      return pattern;
    } catch {
      field.setAttribute("aria-invalid", "true");
      return undefined;
    }
  }

  apply() {
    const found = this.pattern(this.search, searchPattern);
    const roles = this.pattern(this.roles, rolePattern);
    if (found === undefined || roles === undefined) {
      this.status.textContent = "not a pattern";
      return;
    }
    const least = Number(this.least.value || 0);
    const most = this.most.value === "" ? Infinity : Number(this.most.value);
    const passes = (number) => {
      const one = DATA.conversations[number];
      const n = one.tokens.length;
      const only = this.only.value;
      if (this.task.value !== "" && one.task !== Number(this.task.value)) return false;
      if (n < least || n > most || (roles && !roles.test(one.roles))) return false;
      if (only === "kept" ? one.truncated || one.dropped : only && !one[only]) return false;
      if (!found) return true;
      found.lastIndex = 0;
      return found.test(textOf(one));
    };
    const before = this.shown[this.selected];
    this.found = found;
    this.shown = this.items.filter((item) => item.conversations.some(passes));
    this.status.textContent = `${count(this.shown.length)} of ${plural(this.items.length, this.what)}`;
    this.drawList();
    this.select(Math.max(0, this.shown.indexOf(before)), false);
  }

  drawList() {
    this.list.replaceChildren();
    this.drawn = 0;
    this.drawMore();
  }

  /** Draws the next entries, so that thousands cost nothing until they are wanted. */
  drawMore() {
    this.list.querySelector(".more")?.remove();
    const next = this.shown.slice(this.drawn, this.drawn + PAGE);
    this.list.append(...next.map((item, i) => make("li", { role: "option", "data-n": this.drawn + i,
      id: `${this.what}-${this.drawn + i}`, "aria-selected": "false" }, ...item.entry())));
    this.drawn += next.length;
    const left = this.shown.length - this.drawn;
    if (left > 0) this.list.append(make("li", { class: "more" }, `${count(left)} more`));
  }

  click(event) {
    const entry = event.target.closest("li");
    if (!entry) return;
    if (entry.classList.contains("more")) this.drawMore();
    else this.select(Number(entry.dataset.n));
  }

  select(number, scroll = true) {
    this.selected = Math.min(Math.max(number, 0), Math.max(this.shown.length - 1, 0));
    while (this.selected >= this.drawn && this.drawn < this.shown.length) this.drawMore();
    this.list.querySelector('[aria-selected="true"]')?.setAttribute("aria-selected", "false");
    const item = this.shown[this.selected];
    this.cursor = null;
    if (!item) {
      this.list.removeAttribute("aria-activedescendant");
      this.detail.replaceChildren(make("p", { class: "empty" }, "Nothing passes these filters."));
      return;
    }
    const entry = this.list.children[this.selected];
    entry.setAttribute("aria-selected", "true");
    this.list.setAttribute("aria-activedescendant", entry.id);
    const top = entry.offsetTop;
    if (top < this.list.scrollTop || top + entry.offsetHeight > this.list.scrollTop + this.list.clientHeight) {
      this.list.scrollTop = top - this.list.clientHeight / 3;
    }
    this.detail.replaceChildren(...item.draw(this.found));
    const wanted = scroll && this.panel.getBoundingClientRect().top < 0;
    if (wanted) this.detail.scrollIntoView({ block: "start" });
    if (scroll) announce(`${this.what} ${this.selected + 1} of ${this.shown.length}: ${item.label}`);
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
