// State of the page, redrawing, and keyboard control.
const box = (id) => document.getElementById(id);
const STATES = ["done", "failed", "stranded", "held", "in_doubt", "ready", "running", "submitting", "queued"];
const view = { state: "", query: "", rows: "", columns: "", order: "", size: "" };
let asked = 0;

function label(id, word) {
  box(id).setAttribute("aria-label", say(word));
  const text = box(id).previousElementSibling;
  if (text) text.textContent = say(word);
}

function begin() {
  document.documentElement.lang = LANGUAGE;
  box("job").textContent = plain(INFO.job);
  const cost = INFO.cost ? say("cost", `${number(INFO.cost)} ${unitName(INFO.unit)}`.trim()) : "";
  const made = say("made", new Date(INFO.made * 1000).toLocaleString(LANGUAGE));
  box("sum").textContent = [say("tasks", number(INFO.total)), cost, INFO.pretend ? say("pretend") : "", made].filter(Boolean).join(" · ");
  box("query").placeholder = say("search");
  for (const id of ["query", "rows", "columns", "order", "size"]) label(id, id === "query" ? "search" : id);
  box("theme").title = say("theme");
  box("theme").textContent = "◐";
  for (const state of STATES.filter((each) => INFO.counts[each])) {
    const share = make("i", { class: state, title: `${say(state)} ${number(INFO.counts[state])}` });
    share.style.flexGrow = INFO.counts[state];
    box("bar").append(share);
  }
  box("bar").setAttribute("aria-label", STATES.filter((state) => INFO.counts[state]).map((state) => `${say(state)} ${INFO.counts[state]}`).join(", "));
  options(box("order"), [["", say("by_manifest")], ["newest", say("by_newest")], ["name", say("by_name")]]);
  Object.assign(view, Object.fromEntries([...new URLSearchParams(location.hash.slice(1))].filter(([name]) => name in view)));
  box("size").value = Number(view.size) || (innerWidth < 600 ? 150 : 220);
  box("query").value = view.query;
}

function options(select, pairs) {
  const kept = select.value;
  select.replaceChildren(...pairs.map(([value, textContent]) => make("option", { value, textContent })));
  select.value = pairs.some(([value]) => value === kept) ? kept : "";
}

/** Redraw everything, at most once a frame. */
function refresh() {
  asked ||= requestAnimationFrame(() => { asked = 0; redraw(); });
}

function redraw() {
  const known = axes();
  const pairs = (most) => [["", say("none")], ...[...known].filter(([, values]) => values.size <= most).map(([axis]) => [axis, axisName(axis)])];
  options(box("rows"), pairs(MOST_ROWS));
  options(box("columns"), pairs(MOST_COLUMNS));
  for (const name of ["rows", "columns", "order"]) {
    box(name).value = view[name];
    if (box(name).selectedIndex < 0) box(name).value = "";
  }
  chips();
  document.documentElement.style.setProperty("--tools", `${box("tools").offsetHeight}px`);
  const found = chosen(view);
  // an axis from the address is valid only after its data has arrived
  const rows = known.has(view.rows) ? view.rows : "", heads = known.has(view.columns) ? view.columns : "";
  telling = ranking([...known.keys()].filter((axis) => axis.startsWith("vars."))).filter((axis) => axis !== rows && axis !== heads);
  const values = heads ? [...grouped(found, heads).keys()] : [];
  const groups = rows ? [...grouped(found, rows)] : [[null, found]];
  lay(groups.filter(([, list]) => list.length).map(([value, list]) => {
    const cells = heads ? grouped(list, heads) : null;
    const name = value === null ? null : axisValue(rows, value);
    return { label: name, count: list.length, ...(heads ? { cells: values.map((each) => cells.get(each) ?? []) } : { tiles: list }) };
  }), values.map((value) => axisValue(heads, value)), Number(box("size").value));
  note(found.length);
}

function chips() {
  const chip = (state, count) => make("button", {
    type: "button", class: `chip ${state}`, "aria-pressed": String(view.state === state),
    onclick: () => choose({ state }) }, state ? make("i", { class: `dot ${state}` }) : null, `${say(state || "all")} `,
    make("span", { textContent: number(count) }));
  const counts = STATES.filter((state) => INFO.counts[state]).map((state) => [state, INFO.counts[state]]);
  box("states").replaceChildren(chip("", INFO.total), ...counts.map(([state, count]) => chip(state, count)));
}

function note(count) {
  const read = [...parts.values()].flat().length ? new Set(tiles.map(({ task }) => task)).size : 0;
  const late = document.readyState === "complete" && parts.size < INFO.parts;
  box("note").textContent = [
    late ? say("missing") : read < INFO.shown ? say("loading", number(read), number(INFO.shown)) : "",
    INFO.shown < INFO.total ? say("newest", number(INFO.shown), number(INFO.total)) : "",
    count || read < INFO.shown ? "" : say(INFO.total ? "nothing" : "empty"),
  ].filter(Boolean).join(" ");
}

/** Change the filters, and write them to the address so that it can be bookmarked. */
function choose(change) {
  Object.assign(view, change);
  const kept = Object.entries(view).filter(([, value]) => value);
  location.replace(`#${new URLSearchParams(kept)}`);
  current = 0;
  refresh();
}

const STEPS = {
  ArrowLeft: () => go(current - 1), ArrowRight: () => go(current + 1), ArrowUp: () => go(across(-1)),
  ArrowDown: () => go(across(1)), Home: () => go(0), End: () => go(walk.length - 1),
};

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = /^(INPUT|SELECT|TEXTAREA|VIDEO|AUDIO)$/.test(event.target.tagName);
  if (event.key === "Escape" && event.target === box("query")) { box("query").value = ""; choose({ query: "" }); go(0); }
  if (typing) return;
  if (dialog.open) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by && walk[current + by]) { event.preventDefault(); open(current + by); }
    return;
  }
  if (event.key === "/") { event.preventDefault(); box("query").focus(); }
  if (STEPS[event.key] && walk.length) { event.preventDefault(); STEPS[event.key](); }
}

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

begin();
window.gallery = Object.freeze({ take: (at, rows) => { take(at, rows); refresh(); } });
box("query").oninput = () => choose({ query: box("query").value });
for (const name of ["rows", "columns", "order"]) box(name).onchange = () => choose({ [name]: box(name).value });
box("size").oninput = () => choose({ size: box("size").value });
box("theme").onclick = theme;
wall.onclick = (event) => { const tile = event.target.closest(".tile"); if (tile) open(Number(tile.dataset.at)); };
dialog.onclick = (event) => { if (event.target === dialog) dialog.close(); };
dialog.onclose = () => {
  dialog.replaceChildren();
  if (document.activeElement !== box("query")) go(current); // the event comes late: the user may be searching already
};
addEventListener("keydown", pressed);
addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
addEventListener("resize", refresh);
addEventListener("load", refresh);
refresh();
