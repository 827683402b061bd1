// A list with filters on the left, what is chosen on the right.

const PAGE = 200;

/** The text itself, or the regular expression between slashes; null when there is none. */
function searchPattern(text) {
  if (!text) return null;
  const expression = /^\/.+\/$/s.test(text) ? text.slice(1, -1)
    : text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return new RegExp(expression, "gimu");
}

/** Whether a text holds what was searched; anything does when nothing was. */
function matches(found, text) {
  if (!found) return true;
  found.lastIndex = 0;
  return found.test(text());
}

const field = (label, element) => make("label", {}, label, element);
const option = (value, text) => make("option", { value, dir: "auto" }, text);

/** Subclasses place themselves with their filters, list those in `fields`, and say by `filter` what
 *  passes. */
class Browser {
  /** `items`: [{label, entry(), draw(found)}], each an entry of the list. */
  constructor(panel, { what, items }) {
    Object.assign(this, { panel, what, items, shown: items, selected: 0, drawn: 0, found: null });
    this.list = make("ul", { class: "list", role: "listbox", tabindex: "0",
      "aria-label": `${what}s`, onclick: (event) => this.click(event) });
    this.detail = make("article", { class: "detail card", tabindex: "-1", "aria-live": "off" });
    this.status = make("span", { class: "note", role: "status" });
    this.search = this.input({ type: "search", placeholder: "text, or /regular expression/",
      "aria-label": "Search in the text", dir: "auto" });
  }

  /** A field that filters as one types. */
  input(properties) {
    return make("input", { oninput: () => this.later(), spellcheck: "false", ...properties });
  }

  choice(...options) {
    return make("select", { onchange: () => this.later() }, ...options);
  }

  /** The row of filters; a button that empties them and the count stand at its end. */
  makeRow(...parts) {
    const reset = make("button", { type: "button", onclick: () => this.reset() }, "Reset");
    return make("form", { class: "filters", role: "search", onsubmit: (e) => e.preventDefault() },
      field("Search", this.search), ...parts, reset, this.status);
  }

  place(...above) {
    this.panel.append(...above, make("div", { class: "browse" }, this.list, this.detail));
    this.apply();
  }

  /** Applies the filters once nothing more is typed. */
  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.apply(), 120);
  }

  reset() {
    for (const field of this.fields) field.value = "";
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
    const passes = found === undefined ? null : this.filter(found);
    if (!passes) {
      this.status.textContent = "not a pattern";
      return;
    }
    const before = this.shown[this.selected];
    this.found = found;
    this.shown = this.items.filter(passes);
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
}
