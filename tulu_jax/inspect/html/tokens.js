// One conversation: its pieces, its text, and how both are drawn.

const SPECIAL = new Set(DATA.special ?? []);
const ROLE_NAMES = { s: "system", u: "user", a: "assistant" };
const ROLE_MARKER = /^<\|(?:system|user|assistant)\|>$/gm;

/** Token positions by piece: [{start, size, text, on, special}], made when first asked for. */
function piecesOf(conversation) {
  if (conversation.pieces) return conversation.pieces;
  const { tokens, mask, groups } = conversation;
  const flags = maskFlags(mask);
  const pieces = [];
  for (let i = 0, g = 0; i < tokens.length;) {
    const own = g < groups.length && groups[g][0] === i ? groups[g++] : null;
    const size = own ? own[1] : 1;
    pieces.push({ start: i, size, text: own ? own[2] : DATA.vocabulary[tokens[i]][1],
      on: flags[i], special: SPECIAL.has(tokens[i]) });
    i += size;
  }
  return (conversation.pieces = pieces);
}

function maskFlags(runs) {
  const flags = [];
  runs.forEach((length, i) => { for (let n = 0; n < length; n++) flags.push(i % 2 === 1); });
  return flags;
}

const lossTokens = ({ mask }) => mask.reduce((total, n, i) => total + (i % 2 ? n : 0), 0);

function textOf(conversation) {
  return (conversation.text ??= piecesOf(conversation).map((piece) => piece.text).join(""));
}

/** The first words after the first marker, for lists. */
function startOf(conversation) {
  const text = piecesOf(conversation).slice(0, 80).filter((piece) => !piece.special)
    .map((piece) => piece.text).join("");
  return text.replace(/^<\|\w+\|>\n/, "").split(/\n<\|\w+\|>\n/)[0].slice(0, 120)
    .replace(/\s+/g, " ");
}

/** Piece indices whose text lies in one of the ranges [from, to) of the whole text. */
function piecesWithin(pieces, ranges) {
  const found = new Set();
  let at = 0;
  let r = 0;
  pieces.forEach((piece, i) => {
    const end = at + piece.text.length;
    while (r < ranges.length && ranges[r][1] <= at) r++;
    if (r < ranges.length && ranges[r][0] < end && end > at) found.add(i);
    at = end;
  });
  return found;
}

/** The role markers. Special tokens count as line breaks, so that the one behind BOS is found. */
function markersOf(pieces) {
  const text = pieces.map((p) => (p.special ? "\n".repeat(p.text.length) : p.text)).join("");
  return piecesWithin(pieces, rangesOf(text, ROLE_MARKER));
}

/** The conversation's tokens as one block of text, trained ones in runs of class "on". */
function drawTokens(conversation, number, found = null) {
  const pieces = piecesOf(conversation);
  const roles = markersOf(pieces);
  const marked = found ? piecesWithin(pieces, rangesOf(textOf(conversation), found)) : new Set();
  const block = make("div", { class: "tokens", dir: "auto", "data-c": number });
  let run = null;
  pieces.forEach((piece, i) => {
    if (!run || run.on !== piece.on) {
      run = { on: piece.on, element: make("span", { class: piece.on ? "on" : "off" }) };
      block.append(run.element);
    }
    const span = make("span", { "data-i": i,
      class: piece.special ? "sp" : roles.has(i) ? "role" : null });
    fill(marked.has(i) ? span.appendChild(make("mark")) : span, piece.text);
    run.element.append(span);
  });
  return block;
}

/** What the tooltip says of a piece: which tokens it is, and whether they are trained. */
function tokenTip(span) {
  const conversation = DATA.conversations[span.closest("[data-c]").dataset.c];
  return describe(conversation, piecesOf(conversation)[span.dataset.i]);
}

function describe(conversation, piece) {
  const lines = [];
  for (let i = piece.start; i < piece.start + piece.size; i++) {
    const id = conversation.tokens[i];
    lines.push(`token ${i}: ${visible(DATA.vocabulary[id][0])} (id ${id})`);
  }
  if (piece.size > 1) lines.push(`together: ${visible(piece.text)}`);
  lines.push(piece.on ? "trained: counts in the loss" : "not trained: context only");
  return lines.join("\n");
}

/** A strip of all positions: trained ones green, borders of conversations as lines. */
function strip(conversations, length, tall = false) {
  const total = Math.max(length, 1);
  const svg = makeSvg("svg", { class: `strip${tall ? " tall" : ""}`, viewBox: `0 0 ${total} 10`,
    preserveAspectRatio: "none", "aria-hidden": "true" });
  let at = 0;
  for (const { tokens, mask } of conversations) {
    svg.append(makeSvg("rect", { class: "context", x: at, width: tokens.length, height: 10 }));
    let from = at;
    mask.forEach((n, i) => {
      if (i % 2) svg.append(makeSvg("rect", { class: "trained", x: from, width: n, height: 10 }));
      from += n;
    });
    at += tokens.length;
    if (at < total) svg.append(makeSvg("line", { class: "edge", x1: at, x2: at, y1: 0, y2: 10 }));
  }
  if (at < total) {
    svg.append(makeSvg("rect", { class: "padding", x: at, width: total - at, height: 10 }));
  }
  return svg;
}

/** Says, by example, what the colours mean. */
function legend(note = null) {
  const special = DATA.special?.length ? DATA.vocabulary[DATA.special.at(-1)][0] : "</s>";
  return make("div", { class: "legend card" }, note ? make("p", {}, note) : null, make("p", {},
    make("span", { class: "sample on" }, "Highlighted, underlined tokens"),
    " are trained: the model learns to produce them, and only they count in the loss. ",
    make("span", { class: "sample off" }, "Grey tokens"),
    " are context: the model reads them, and nothing is learned from how well it predicts them. ",
    make("span", { class: "sample sp" }, special), " special token, ",
    make("b", { class: "sample" }, "<|user|>"), " marker of who speaks, ",
    make("span", { class: "sample" }, "⏎"), " line break. Point at a token for its id."));
}
