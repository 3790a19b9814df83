// The wall: lines of tiles, of which only the visible ones are in the document.
const GAP = 12, HEAD = 46, CAPTION = 30, AHEAD = 600;
const wall = document.getElementById("wall");
/** {top, height, head} or {top, height, tiles}; a tile is null where a table has no such cell. */
let lines = [];
/** Tiles in the order of keyboard navigation, each with its line. */
let walk = [];
let columns = 1, width = 200, current = 0;
/** Axes that distinguish a tile from its neighbours, for its caption. */
let telling = [];
const drawn = new Map();

/** Lay out groups of tiles: {label, count, tiles} or, for a table, {label, count, cells: one list a column}. */
function lay(groups, heads, size) {
  const room = wall.clientWidth;
  columns = heads.length || Math.max(room < 360 ? 1 : 2, Math.floor((room + GAP) / (size + GAP)));
  const fit = (room - GAP * (columns - 1)) / columns;
  // few columns do not fill a wide window, and many columns scroll instead of shrinking
  width = heads.length ? Math.max(size * 0.6, Math.min(fit, size * 1.5)) : fit;
  wall.style.minWidth = heads.length ? `${columns * (width + GAP) - GAP}px` : "";
  lines = [];
  let top = 0;
  const add = (height, fields) => { lines.push({ top, height, ...fields }); top += height; };
  if (heads.length) add(HEAD, { heads });
  for (const group of groups) {
    if (group.label !== null) add(HEAD, { head: group });
    const deep = Math.max(0, ...(group.cells ?? []).map((cell) => cell.length));
    for (let at = 0; at < deep; at += 1) add(width + CAPTION + GAP, { tiles: group.cells.map((cell) => cell[at] ?? null) });
    const flat = group.tiles ?? [];
    for (let at = 0; at < flat.length; at += columns) add(width + CAPTION + GAP, { tiles: flat.slice(at, at + columns) });
  }
  wall.style.height = `${top}px`;
  walk = lines.flatMap((line, at) => (line.tiles ?? []).flatMap((tile, column) => (tile ? [{ tile, line: at, column }] : [])));
  lines.forEach((line) => { line.first = null; });
  walk.forEach((step, at) => { lines[step.line].first ??= at; });
  current = Math.min(current, Math.max(0, walk.length - 1));
  drawn.forEach((element) => element.remove());
  drawn.clear();
  draw();
}

/** Create the lines in view and a margin around it; remove all others. */
function draw() {
  const from = -wall.getBoundingClientRect().top - AHEAD, to = from + innerHeight + 2 * AHEAD;
  const wanted = new Set();
  for (let at = lineAt(from); at < lines.length && lines[at].top < to; at += 1) wanted.add(at);
  if (lines[0]?.heads) wanted.add(0);
  for (const [at, element] of drawn) if (!wanted.has(at)) { element.remove(); drawn.delete(at); }
  for (const at of wanted) if (!drawn.has(at)) { const line = lineOf(lines[at]); drawn.set(at, line); wall.append(line); }
}

/** Return the first line that ends below a height, by binary search. */
function lineAt(height) {
  let low = 0, high = lines.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (lines[middle].top + lines[middle].height < height) low = middle + 1; else high = middle;
  }
  return low;
}

function lineOf(line) {
  const element = make("div", { class: "line" });
  if (!line.heads) element.style.top = `${line.top}px`;
  element.style.height = `${line.height}px`;
  if (line.heads) {
    element.classList.add("heads");
    element.append(...line.heads.map((head) => quote("b", head)));
  } else if (line.head) {
    element.classList.add("group");
    element.append(quote("h2", line.head.label), make("span", { textContent: number(line.head.count) }));
    return element;
  } else {
    let step = line.first;
    element.append(...line.tiles.map((tile) => (tile ? tileOf(tile, step++) : make("i"))));
  }
  element.style.gridTemplateColumns = `repeat(${columns}, ${width}px)`;
  return element;
}

function tileOf(tile, at) {
  const { task, output } = tile;
  const name = output ? output.file : task.key.slice(0, 8);
  const caption = telling.map((axis) => task.axes.get(axis)).filter(Boolean).join(" · ") || name;
  const frame = make("span", { class: "picture" }, output ? shown(output) : errorOf(task));
  frame.style.height = `${width}px`;
  if (task.outputs.length > 1) frame.append(make("em", { textContent: `${tile.at + 1}/${task.outputs.length}` }));
  const button = make("button", { type: "button", class: `tile ${task.state}`, tabIndex: at === current ? 0 : -1 },
    frame, make("span", { class: "caption" }, make("i", { class: "dot" }), quote("span", caption)));
  button.title = plain(`${caption}\n${name}`);
  button.dataset.at = at;
  if (output?.type?.startsWith("video/")) play(button, frame, output);
  return button;
}

function shown(output) {
  const kind = (output.type ?? "").split("/")[0];
  const lost = (event) => event.target.replaceWith(make("span", { class: "none", textContent: say("no_file") }));
  if (output.small) {
    const source = `${INFO.folder}/${output.small}`;
    return make("img", { decoding: "async", alt: "", src: source, onerror: lost });
  }
  if (kind === "video" && output.small === null)
    return make("video", { muted: true, preload: "metadata", src: `${address(output.file)}#t=0.1`, onerror: lost });
  if (kind === "image" && output.small === null)
    return make("img", { decoding: "async", alt: "", src: address(output.file), onerror: lost });
  return make("span", { class: "none", textContent: say(kind === "audio" ? "no_sound" : "no_preview") });
}

function errorOf(task) {
  const [reason, , message] = task.error ?? [];
  return make("span", { class: "fault" }, make("b", { textContent: say(task.state) }),
    reason ? quote("span", reason) : null, message ? quote("small", message) : null);
}

/** Play a video under the pointer, muted, unless the user prefers reduced motion. */
function play(button, frame, output) {
  button.classList.add("film");
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  let video = null;
  button.onpointerenter = () => {
    video = make("video", { class: "playing", muted: true, loop: true, autoplay: true, playsInline: true, src: address(output.file) });
    frame.append(video);
  };
  button.onpointerleave = () => { video?.removeAttribute("src"); video?.load(); video?.remove(); video = null; };
}

/** Move to a tile and scroll it into view. */
function go(at) {
  if (!walk.length) return;
  wall.querySelector(`[data-at="${current}"]`)?.setAttribute("tabindex", "-1");
  current = Math.max(0, Math.min(at, walk.length - 1));
  const line = lines[walk[current].line];
  const top = wall.getBoundingClientRect().top + scrollY + line.top;
  const above = document.getElementById("tools").offsetHeight + (lines[0].heads ? HEAD : 0) + GAP;
  if (top - above < scrollY) scrollTo({ top: top - above });
  else if (top + line.height > scrollY + innerHeight) scrollTo({ top: top + line.height - innerHeight });
  draw();
  const button = wall.querySelector(`[data-at="${current}"]`);
  button?.setAttribute("tabindex", "0");
  button?.focus({ preventScroll: true });
  button?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** Return the tile above or below: in the same column of the next line with tiles, else the nearest one there. */
function across(step) {
  const here = walk[current];
  for (let at = here.line + step; at >= 0 && at < lines.length; at += step) {
    if (lines[at].first === null) continue;
    const there = walk.map((place, index) => ({ ...place, index })).slice(lines[at].first, lines[at].first + columns);
    const near = there.filter((place) => place.line === at)
      .sort((one, other) => Math.abs(one.column - here.column) - Math.abs(other.column - here.column))[0];
    return near.index;
  }
  return current;
}
