// Tabs, theme, keys: the frame of a page. Its TABS, OWN_KEYS and SEARCHED stand before it.

let current = null;

/** Shows a tab; what it holds is drawn on the first visit. */
function openTab(tab, focus = false) {
  if (!tab) return;
  current = tab;
  for (const other of TABS) {
    const chosen = other === tab;
    other.button.setAttribute("aria-selected", String(chosen));
    other.button.tabIndex = chosen ? 0 : -1;
    other.panel.hidden = !chosen;
  }
  tab.browser ??= tab.draw(tab.panel) ?? true;
  if (focus) tab.button.focus();
  history.replaceState(null, "", `#${tab.id}`);
}

function makeTabs() {
  TABS.forEach((tab, i) => {
    tab.panel = make("div", { id: `panel-${tab.id}`, role: "tabpanel", "aria-labelledby": `tab-${tab.id}`,
      hidden: true });
    tab.button = make("button", { type: "button", role: "tab", id: `tab-${tab.id}`,
      "aria-controls": `panel-${tab.id}`, onclick: () => openTab(tab), onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        event.preventDefault();
        event.stopPropagation();
        openTab(TABS[(i + step + TABS.length) % TABS.length], true);
      } }, tab.name);
    $("tabs").append(tab.button);
    $("main").append(tab.panel);
  });
  $("tabs").hidden = TABS.length < 2;
}

// Theme: as the system has it until the reader chooses; the choice is kept where that is allowed.
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function readTheme() {
  try {
    return localStorage.getItem("tulu-theme");
  } catch {
    return null;
  }
}

function setTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  $("theme-button").textContent = isDark() ? "Light" : "Dark";
}

function isDark() {
  return (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
}

function toggleTheme() {
  const theme = isDark() ? "light" : "dark";
  setTheme(theme);
  try {
    localStorage.setItem("tulu-theme", theme);
  } catch { /* a file may not be allowed to keep anything */ }
}

// Keys. Those that need a list do nothing on a tab without one. A page puts its own into OWN_KEYS.
const browser = () => (current?.browser instanceof Browser ? current.browser : null);
const step = (by) => () => browser()?.select(browser().selected + by);
const KEYS = [
  [["j", "ArrowDown"], "j or ↓", "next one", step(1)],
  [["k", "ArrowUp"], "k or ↑", "previous one", step(-1)],
  [["g", "Home"], "g", "first one", () => browser()?.select(0)],
  [["G", "End"], "G", "last one", () => browser()?.select(Infinity)],
  ...OWN_KEYS,
  [["/"], "/", "search", () => focusSearch()],
  [["x"], "x", "reset the filters", () => browser()?.reset()],
  [["1", "2", "3", "4"], "1 to 4", "tabs", (event) => openTab(TABS[Number(event.key) - 1])],
  [["d"], "d", "dark or light", toggleTheme],
  [["?"], "?", "these keys", () => $("help").showModal()],
];

function focusSearch() {
  if (!browser()) openTab(TABS.find((tab) => tab.id === SEARCHED));
  browser()?.search.focus();
  browser()?.search.select();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const field = event.target.closest?.("input, select, textarea");
  if (field && field.type !== "checkbox") {
    if (event.key === "Escape" || (event.key === "Enter" && field.type === "search")) {
      event.preventDefault();
      browser()?.apply();
      field.blur();
      browser()?.list.focus({ preventScroll: true });
    }
    return;
  }
  if (event.key === "Escape") hideTip();
  const known = KEYS.find(([keys]) => keys.includes(event.key));
  const arrows = event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End";
  if (!known || (arrows && !browser())) return;
  event.preventDefault();
  known[3](event);
}

function start() {
  setTheme(readTheme());
  dark.addEventListener("change", () => setTheme(null));
  $("title").textContent = DATA.title;
  for (const [label, text] of DATA.settings) {
    $("settings").append(make("div", {}, make("dt", {}, label), make("dd", { dir: "auto" }, text)));
  }
  for (const [, shown, meaning] of KEYS) {
    $("keys").append(make("dt", {}, make("kbd", {}, shown)), make("dd", {}, meaning));
  }
  makeTabs();
  $("theme-button").addEventListener("click", toggleTheme);
  $("help-button").addEventListener("click", () => $("help").showModal());
  document.addEventListener("keydown", onKey);
  const wanted = () => TABS.find((tab) => `#${tab.id}` === location.hash);
  window.addEventListener("hashchange", () => openTab(wanted()));
  openTab(wanted() ?? TABS[0]);
}

start();
