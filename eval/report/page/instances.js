// Browsing instances: what each model was asked, what it said, and how that was scored.

const LINES = new Map(DATA.lines.map((one) => [one.task, one]));

/** 1 for right, 0 for wrong, between them for a score; null where nothing was scored. */
function goodness(task, answer) {
  if (!answer || answer.value === null) return null;
  const { scale, lower } = LINES.get(task);
  const share = answer.value / (scale === 100 ? 1 : 100);
  return lower ? 1 - share : share;
}

const isWrong = (task, answer) => {
  const good = goodness(task, answer);
  return good !== null && good < 0.5;
};

function verdict(task, answer) {
  if (answer.error) return ["failed", "failed"];
  const good = goodness(task, answer);
  if (good === null) return ["none", "no score"];
  const shown = Number(answer.value.toPrecision(3));
  const name = good >= 0.5 ? "right" : "wrong";
  return [name, good === 0 || good === 1 ? name : `${name}, ${shown}`];
}

for (const { answers } of DATA.instances) {
  for (const answer of answers) {
    if (typeof answer?.prompt === "number") answer.prompt = answers[answer.prompt].prompt;
  }
}

const promptOf = ({ prompt: [shared, own] }) => [DATA.texts[shared], own];

class InstanceBrowser extends Browser {
  constructor(panel) {
    super(panel, { what: "instance", items: DATA.instances.map((one) => instanceItem(one)) });
    const numbered = DATA.models.map((name, i) => option(String(i), visible(name)));
    this.task = this.choice(option("", "all"), ...DATA.lines.filter(({ task }) => DATA.totals[task])
      .map(({ task, title }) => option(task, visible(title))));
    this.only = this.choice(option("", "all"), option("wrong", "wrong"), option("right", "right"),
      option("better", "flipped to right"), option("worse", "flipped to wrong"),
      option("flipped", "flipped"), option("failed", "failed"));
    this.model = this.choice(...numbered);
    this.against = this.choice(...numbered.map((one) => one.cloneNode(true)));
    this.usual();
    const flips = DATA.models.length > 1 ? field("against", this.against) : null;
    this.place(this.note(), this.makeRow(field("Task", this.task), field("Only", this.only),
      field("of", this.model), ...(flips ? [flips] : [])));
  }

  /** The model that flips are told of, and the one it is compared with: the base, or the first. */
  usual() {
    const base = Math.max(0, DATA.models.indexOf(DATA.base));
    this.against.value = String(base);
    this.model.value = String(DATA.models.findIndex((_, i) => i !== base) < 0 ? 0
      : DATA.models.findIndex((_, i) => i !== base));
  }

  note() {
    const whole = Object.values(DATA.totals).reduce((a, b) => a + b, 0);
    const part = DATA.instances.length < whole
      ? `Here are ${count(DATA.instances.length)} of ${plural(whole, "instance")}, of each task half ` +
        "drawn at random and half of those on which models differ: shares of wrong and right among " +
        "them are not those of the table. " : "";
    return line("note", `${part}A score below half of the possible counts as wrong. Flipped: right ` +
      "with one model and wrong with the other.");
  }

  get fields() {
    return [this.search, this.task, this.only];
  }

  reset() {
    this.usual();
    super.reset();
  }

  filter(found) {
    const [model, against] = [Number(this.model.value), Number(this.against.value)];
    const only = this.only.value;
    return ({ one }) => {
      if (this.task.value !== "" && one.task !== this.task.value) return false;
      const [a, b] = [one.answers[against], one.answers[model]];
      if (only && !passesOnly(only, one.task, a, b)) return false;
      return matches(found, () => textOfInstance(one));
    };
  }
}

function passesOnly(only, task, before, answer) {
  if (only === "failed") return Boolean(answer?.error);
  const good = goodness(task, answer);
  if (good === null) return false;
  if (only === "wrong" || only === "right") return (only === "wrong") === isWrong(task, answer);
  if (goodness(task, before) === null) return false;
  const [was, is] = [isWrong(task, before), isWrong(task, answer)];
  if (was === is) return false;
  return only === "flipped" || (only === "better") === was;
}

/** All that can be searched; what models share of a prompt is told once. */
function textOfInstance(one) {
  return (one.text ??= [one.id, one.group ?? "", ...one.answers.filter(Boolean).flatMap((answer) =>
    [...promptOf(answer), answer.output ?? "", answer.prediction, answer.gold])].join("\n"));
}

function instanceItem(one) {
  const asked = one.answers.find(Boolean);
  const marks = () => one.answers.map((answer) => {
    const [kind] = answer ? verdict(one.task, answer) : ["none"];
    return make("i", { class: `dot ${kind}` });
  });
  return {
    one,
    label: one.id,
    entry: () => [
      make("div", { class: "id" }, make("b", { dir: "auto" }, visible(one.id)),
        make("span", { class: "dots", "aria-hidden": "true" }, ...marks())),
      make("div", { class: "start", dir: "auto" },
        `${visible(LINES.get(one.task).title)} · `,
        visible(promptOf(asked)[1].slice(0, 160).replace(/\s+/g, " ")))],
    draw: (found) => drawInstance(one, found),
  };
}

function drawInstance(one, found) {
  const { title, metric } = LINES.get(one.task);
  const answers = one.answers.map((answer, i) => [answer, i]).filter(([answer]) => answer);
  const [first] = answers[0];
  const alike = answers.every(([answer]) => promptOf(answer).join("") === promptOf(first).join(""));
  return [
    words("h2", "", one.id),
    make("div", { class: "facts" }, words("span", "", title), metric ? words("span", "", metric) : null,
      one.group ? words("span", "", one.group) : null,
      first.gold ? words("span", "gold", `gold: ${first.gold}`) : null),
    ...(alike ? drawPrompt(first, found) : []),
    make("div", { class: "answers" }, ...answers.map(([answer, i]) =>
      drawAnswer(one.task, answer, i, found, alike ? [] : drawPrompt(answer, found))))];
}

/** The prompt: what it shares with others of its group folded away. */
function drawPrompt(answer, found) {
  const [shared, own] = promptOf(answer);
  const folded = shared ? make("details", {}, make("summary", {},
    `${plural(shared.length, "character")} that prompts of this group begin with`), text(shared, found)) : null;
  const box = text(own, found, "prompt");
  requestAnimationFrame(() => { box.scrollTop = box.scrollHeight; }); // the question comes last
  return [make("h3", {}, "Prompt"), ...(folded ? [folded] : []), box];
}

function drawAnswer(task, answer, model, found, prompt) {
  const [kind, told] = verdict(task, answer);
  const [asked, said] = answer.tokens;
  return make("section", { class: `answer ${kind}` },
    make("h3", {}, words("span", "", DATA.models[model]), make("span", { class: `verdict ${kind}` }, told)),
    ...prompt,
    make("div", { class: "facts" }, answer.prediction ? words("span", "", `answer: ${answer.prediction}`) : null,
      answer.stop ? words("span", "", `stopped: ${answer.stop}`) : null,
      said === null ? null : make("span", {}, `${asked ?? "?"} + ${said} tokens`),
      answer.samples > 1 ? make("span", {}, `one of ${answer.samples} samples`) : null,
      answer.error ? words("span", "badge", answer.error) : null),
    answer.output === null ? make("p", { class: "note" }, "no output") : text(answer.output, found));
}

/** A text as it is, in a box that scrolls; what was searched is marked. */
function text(value, found, style = "") {
  const box = make("div", { class: `text ${style}`, dir: "auto", tabindex: "0" });
  let at = 0;
  for (const [from, to] of found ? rangesOf(value, found) : []) {
    fill(box, value.slice(at, from));
    fill(box.appendChild(make("mark")), value.slice(from, to));
    at = to;
  }
  fill(box, value.slice(at));
  return box;
}
