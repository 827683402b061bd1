// Keys, drafts and sending again. Every page works without it too.
"use strict";

const user = document.body.dataset.user ?? "";
const status = document.getElementById("status");
const csrf = () => document.querySelector("meta[name=csrf]").content;
const form = document.getElementById("answer");

function say(words) {
  status.textContent = words;
  status.hidden = !words;
}

// ---- What the browser keeps: it may refuse, or be full; then answers are sent without a copy.
const kept = {
  get(name) { try { return JSON.parse(localStorage.getItem(name)); } catch { return null; } },
  set(name, value) { try { localStorage.setItem(name, JSON.stringify(value)); } catch { /* full */ } },
  drop(name) { try { localStorage.removeItem(name); } catch { /* refused */ } },
  names(start) { try { return Object.keys(localStorage).filter((n) => n.startsWith(start)).sort(); } catch { return []; } },
};
const draftName = (position) => `annotate.draft.${user}.${position}`;
const outbox = `annotate.outbox.${user}.`;

// ---- Sending: an answer stays in the browser until the server says that it has it.
let sending = false, timer = null, wait = 1000;

async function post(entry) {
  const body = new URLSearchParams(entry.body);
  body.set("csrf", csrf());
  return fetch(entry.url, {
    method: "POST", body, headers: { accept: "application/json", "x-csrf-token": csrf() },
    redirect: "error", credentials: "same-origin",
  });
}

async function sendAll() {
  if (sending) return;
  sending = true;
  clearTimeout(timer);
  try {
    for (const name of kept.names(outbox)) {
      const entry = kept.get(name);
      if (!entry) { kept.drop(name); continue; }
      if (!await sendOne(name, entry)) return;
    }
  } finally { sending = false; }
}

async function sendOne(name, entry) {
  let answer, said = {};
  try {
    answer = await post(entry);
    said = await answer.json();
  } catch { return again("The answer could not be sent. It is kept in this browser, and sent again."); }
  if (answer.ok && said.saved) {
    if (form?.dataset.position === entry.position) touched = false;
    kept.drop(name);
    kept.drop(draftName(entry.position));
    wait = 1000;
    say("");
    if (form && form.dataset.position === entry.position) location.assign(said.next);
    return true;
  }
  if (answer.status === 401) { say("Your session has ended. Log in again: your answer is kept in this browser."); return false; }
  if (answer.status === 422 || answer.status === 404) {
    kept.drop(name);
    say(said.wrong);
    return true;
  }
  return again(said.wait ?? said.again ?? said.wrong ?? "The answer could not be sent. It is kept in this browser.");
}

function again(words) {
  say(words);
  timer = setTimeout(sendAll, wait);
  wait = Math.min(wait * 1.6, 15000);
  return false;
}

addEventListener("online", sendAll);

// ---- The form of an instance.
let since = document.hidden ? null : Date.now(), spent = 0;

function secondsSpent() {
  return spent + (since === null ? 0 : (Date.now() - since) / 1000);
}
document.addEventListener("visibilitychange", () => {
  spent = secondsSpent();
  since = document.hidden ? null : Date.now();
  if (form) keepDraft();
});

let touched = false;

function keepDraft() {
  if (!touched) return;
  const fields = Object.fromEntries(new FormData(form));
  kept.set(draftName(form.dataset.position), { fields, spent: secondsSpent() });
}

function restoreDraft() {
  const draft = kept.get(draftName(form.dataset.position));
  if (!draft) return;
  spent = draft.spent ?? 0;
  for (const [name, value] of Object.entries(draft.fields ?? {})) {
    if (name === "csrf" || name === "spent") continue;
    for (const field of form.querySelectorAll(`[name="${CSS.escape(name)}"]`)) {
      if (field.type === "radio") field.checked = field.value === value;
      else field.value = value;
    }
  }
  touched = true;
  if (form.elements.comment.value || form.querySelector("[name=quality]:checked")) document.getElementById("more").open = true;
}

function submitAnswer() {
  form.elements.spent.value = secondsSpent().toFixed(1);
  keepDraft();
  const data = new FormData(form);
  const entry = { url: form.getAttribute("action"), position: form.dataset.position,
                  body: new URLSearchParams(data).toString() };
  const name = `${outbox}${String(Date.now()).padStart(15, "0")}.${data.get("key")}`;
  for (const old of kept.names(outbox)) if (kept.get(old)?.position === entry.position) kept.drop(old);
  kept.set(name, entry);
  if (kept.get(name)) sendAll();
  else sendOne(name, entry);
}

function answered() {
  return ["acceptable_a", "acceptable_b", "preference"].every((n) => form.querySelector(`[name=${n}]:checked`));
}

if (form) {
  restoreDraft();
  form.addEventListener("input", () => { touched = true; keepDraft(); });
  form.addEventListener("change", (event) => {
    touched = true;
    keepDraft();
    if (form.dataset.auto && event.target.type === "radio" && event.target.name !== "quality" && answered()) form.requestSubmit(document.getElementById("save"));
  });
  form.addEventListener("submit", (event) => {
    if (event.submitter?.dataset.plain) { keepDraft(); return; }
    event.preventDefault();
    touched = true;
    submitAnswer();
  });
  addEventListener("pagehide", keepDraft);
}

// ---- Keys: an element with data-key is clicked by that key, unless something is being written.
const writes = (element) => element.matches("textarea, select, input:not([type=radio], [type=checkbox])");

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const target = event.target;
  if (event.key === "Escape" && writes(target)) { target.blur(); return; }
  if (writes(target)) return;
  if (event.key === "Enter") {
    if (target.matches("button, a, summary")) return;
    const save = document.getElementById("save") ?? document.querySelector('[data-key="Enter"]');
    if (save && !event.repeat) { event.preventDefault(); save.click(); }
    return;
  }
  if (event.repeat) return;
  const key = event.key.toLowerCase();
  const element = [...document.querySelectorAll("[data-key]")].find((e) => e.dataset.key === key);
  if (!element) return;
  event.preventDefault();
  if (element.matches("summary")) { openComment(); return; }
  if (element.matches("input")) {
    const more = element.closest("details");
    if (more) more.open = true;
    element.focus({ preventScroll: true });
  }
  element.click();
});

function openComment() {
  document.getElementById("more").open = true;
  document.getElementById("comment").focus();
}

// ---- Views: Markdown or plain text; both completions scrolled together.
function toggle(id, name, apply) {
  const button = document.getElementById(id);
  if (!button) return;
  button.hidden = false;
  let on = kept.get(`annotate.view.${name}`) === true;
  const show = () => { button.setAttribute("aria-pressed", String(on)); apply(on); };
  button.addEventListener("click", () => { on = !on; kept.set(`annotate.view.${name}`, on); show(); });
  show();
}

toggle("plain", "plain", (on) => {
  for (const e of document.querySelectorAll(".rendered")) e.hidden = on;
  for (const e of document.querySelectorAll(".exact")) e.hidden = !on;
});

let together = false, leader = null, rest = 0;
toggle("sync", "together", (on) => { together = on; });
const panes = [...document.querySelectorAll(".completion .scroll")];
for (const pane of panes) {
  pane.addEventListener("scroll", () => {
    if (!together || (leader && leader !== pane)) return;
    leader = pane;
    clearTimeout(rest);
    rest = setTimeout(() => { leader = null; }, 120);
    const share = pane.scrollTop / Math.max(1, pane.scrollHeight - pane.clientHeight);
    for (const other of panes) if (other !== pane) other.scrollTop = share * (other.scrollHeight - other.clientHeight);
  });
}

// ---- The dashboard looks for news; times are shown as of this place.
function showTimes() {
  for (const e of document.querySelectorAll("time[data-seconds]")) {
    const when = new Date(1000 * Number(e.dataset.seconds));
    e.textContent = when.toLocaleString();
    e.dateTime = when.toISOString();
  }
}
showTimes();

if (document.getElementById("live")) {
  setInterval(async () => {
    if (document.hidden || document.activeElement?.closest("#live")) return;
    try {
      const answer = await fetch(location.href, { redirect: "error" });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.getElementById("live").replaceWith(page.getElementById("live"));
    } catch { /* the next time */ }
  }, 10000);
}

if (user) sendAll();
