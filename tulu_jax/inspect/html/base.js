// What all parts use: the data, making elements, numbers as text, the tooltip.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

/** An element. Properties starting with "on" are listeners, others attributes; strings among the
 *  children become text, so nothing of the data is ever parsed as markup. */
function make(name, properties = {}, ...children) {
  return build(document.createElement(name), properties, children);
}

function makeSvg(name, properties = {}, ...children) {
  return build(document.createElementNS(SVG, name), properties, children);
}

function build(element, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const count = (n) => n.toLocaleString("en-US");

function short(n) {
  for (const [unit, size] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (n >= size) return `${Number((n / size).toPrecision(3))}${unit}`;
  }
  return String(n);
}

function percent(part, whole) {
  if (!whole) return "0 %";
  const share = (100 * part) / whole;
  if (share > 0 && share < 0.1) return "< 0.1 %";
  return `${share.toFixed(share >= 10 || Number.isInteger(share) ? 0 : 1)} %`;
}

const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

/** What a screen reader says next. */
function announce(text) {
  $("live").textContent = text;
}

// The tooltip follows whatever carries data-tip, or gives its text by tipOf.
function showTip(text, x, y) {
  const tip = $("tip");
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = Math.min(x + 12, window.innerWidth - box.width - 8);
  const below = y + 18 + box.height < window.innerHeight;
  tip.style.left = `${Math.max(4, left)}px`;
  tip.style.top = `${below ? y + 18 : Math.max(4, y - box.height - 12)}px`;
}

function hideTip() {
  $("tip").hidden = true;
}

document.addEventListener("mousemove", (event) => {
  const target = event.target.closest?.("[data-tip], [data-i]");
  if (!target) hideTip();
  else showTip(target.dataset.tip ?? tokenTip(target), event.clientX, event.clientY);
});
document.addEventListener("scroll", hideTip, true);
document.addEventListener("mouseleave", hideTip);
