// Text as it is shown: what would be invisible or turn it around is named, what was searched is found.

// Characters that would be invisible or turn the text around are shown by name, and halves of
// pairs that no font can show. Joiners stay: Persian and emoji need them.
const HALF = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.source;
const NAMED = /\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb/.source;
const CONTROL = new RegExp(`[${NAMED}]|${HALF}`);
const SPLIT = new RegExp(`([${NAMED}\\t\\n]|${HALF})`);

/** Puts text into an element, with line breaks marked and invisible characters named. */
function fill(element, text) {
  if (!CONTROL.test(text) && !/[\n\t]/.test(text)) {
    element.append(text);
    return;
  }
  for (const part of text.split(SPLIT)) {
    if (part === "\n") element.append(make("span", { class: "nl", "aria-hidden": "true" }, "⏎"), "\n");
    else if (part === "\t" || !CONTROL.test(part)) element.append(part);
    else element.append(make("span", { class: "ctl" }, controlName(part)));
  }
}

function controlName(character) {
  const code = character.codePointAt(0);
  if (code < 0x20) return String.fromCodePoint(0x2400 + code);
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

function visible(text) {
  return text.split(SPLIT).map((part) => (part === "\n" ? "⏎" : part === "\t" ? "⇥"
    : CONTROL.test(part) ? controlName(part) : part)).join("");
}

function rangesOf(text, pattern) {
  const ranges = [];
  for (const match of text.matchAll(pattern)) {
    if (match[0].length) ranges.push([match.index, match.index + match[0].length]);
    if (ranges.length >= 5000) break;
  }
  return ranges;
}
