// What the page of a mixture is made of.

const TABS = [
  { id: "overview", name: "Overview", has: DATA.tasks?.length, draw: drawOverview },
  { id: "examples", name: "Examples", has: DATA.examples?.length, draw: (panel) =>
    new ConversationBrowser(panel, { what: "example", items: DATA.examples.map(exampleItem),
      lengths: Math.max(...DATA.conversations.map((one) => one.tokens.length)) }) },
  { id: "rows", name: "Packed rows", has: DATA.rows?.length, draw: (panel) =>
    new ConversationBrowser(panel, { what: "row", items: DATA.rows.map(rowItem), lengths: DATA.rows[0].length,
      note: "A packed row is what the model reads at once: conversations side by side, none split " +
        "over two rows. These are the first rows of training, in order, when none is held out." }) },
  { id: "checks", name: "Checks", has: DATA.sections?.length, draw: drawChecks },
].filter((tab) => tab.has);

const SEARCHED = "examples";

const OWN_KEYS = [
  [["l", "ArrowRight"], "l or →", "next token, with its id", () => browser()?.moveCursor(1)],
  [["h", "ArrowLeft"], "h or ←", "previous token", () => browser()?.moveCursor(-1)],
  [["b"], "b", "token borders", () => browser()?.cuts.click()],
];
