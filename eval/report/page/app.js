// What the page of results is made of.

const TABS = [
  { id: "overview", name: "Results", has: true, draw: drawOverview },
  { id: "groups", name: "Groups", has: Object.keys(DATA.groups).length, draw: drawGroups },
  { id: "instances", name: "Instances", has: DATA.instances.length,
    draw: (panel) => new InstanceBrowser(panel) },
].filter((tab) => tab.has);

const SEARCHED = "instances";

/** Chooses what is shown, or all when it is chosen already. */
const only = (value) => () => {
  const shown = browser();
  if (!shown) return;
  shown.only.value = shown.only.value === value ? "" : value;
  shown.apply();
};

const OWN_KEYS = [
  [["w"], "w", "only wrong ones, or all", only("wrong")],
  [["f"], "f", "only flipped ones, or all", only("flipped")],
];
