// Tasks of the job, which arrive in parts, with filters, search and groups.
const INFO = JSON.parse(document.getElementById("facts").textContent);
/** One tile for each output, and one for each task without outputs. */
let tiles = [];
const parts = new Map();
const AXES = ["provider", "model", "state", "repeat", "reason"];
/** Most columns of a table, and most values of an axis that can be grouped by. */
const MOST_COLUMNS = 40, MOST_ROWS = 5000;

/** Store a part of the data; parts may arrive in any order. */
function take(at, rows) {
  parts.set(at, rows.flatMap(tilesOf));
  tiles = [...parts.keys()].sort((one, other) => one - other).flatMap((part) => parts.get(part));
}

function tilesOf(row) {
  const task = Object.fromEntries(INFO.fields.map((name, at) => [name, row[at]]));
  task.axes = axesOf(task);
  const words = [task.vars, task.request, task.key, task.id, ...(task.error ?? []), ...task.outputs.map(([file]) => file)];
  // users search for text as they type it, without JSON escapes
  task.words = words.filter(Boolean).join("\n").replaceAll('\\"', '"').toLowerCase();
  if (!task.outputs.length) return [{ task, output: null, at: 0 }];
  return task.outputs.map(([file, bytes, type, small], at) => ({ task, at, output: { file, bytes, type, small } }));
}

function axesOf(task) {
  const axes = new Map(Object.entries(exact(task.vars)).map(([name, value]) => [`vars.${name}`, asText(value)]));
  for (const name of AXES) axes.set(name, name === "reason" ? (task.error?.[0] ?? "") : String(task[name]));
  return axes;
}

const axisName = (axis) => (axis.startsWith("vars.") ? plain(axis.slice(5)) : say(axis));
const axisValue = (axis, value) => (axis === "state" ? say(value) : value === "" ? "–" : plain(value));

/** Return every axis with more than one value, with its values in the order of the manifest. */
function axes() {
  const found = new Map();
  for (const { task } of tiles) {
    for (const [axis, value] of task.axes) {
      if (!found.has(axis)) found.set(axis, new Set());
      const values = found.get(axis);
      if (values.size <= MOST_ROWS) values.add(value);
    }
  }
  return new Map([...found].filter(([, values]) => values.size > 1 && values.size <= MOST_ROWS));
}

let ranked = { of: null, names: [] };

/** Return the axes in the order for a short caption: an axis that follows from earlier ones, as a price from an article, comes last. */
function ranking(names) {
  if (ranked.of === tiles && ranked.names.length === names.length) return ranked.names;
  const first = [], last = [];
  let alike = tiles.map(() => 0), kinds = 1;
  for (const name of names) {
    const seen = new Map();
    const finer = tiles.map(({ task }, at) => {
      const kind = `${alike[at]} ${task.axes.get(name) ?? ""}`;
      if (!seen.has(kind)) seen.set(kind, seen.size);
      return seen.get(kind);
    });
    (seen.size > kinds ? first : last).push(name);
    [alike, kinds] = [finer, seen.size];
  }
  ranked = { of: tiles, names: [...first, ...last] };
  return ranked.names;
}

/** Return the tiles that match the filters, in the chosen order. */
function chosen({ state, query, order }) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = tiles.filter(({ task }) =>
    (!state || task.state === state) && words.every((word) => task.words.includes(word)));
  const time = ({ task }) => Date.parse(task.finished ?? task.submitted ?? task.queued ?? 0);
  if (order === "newest") return found.sort((one, other) => time(other) - time(one));
  const name = ({ output, task }) => output?.file ?? task.key;
  return order === "name" ? found.sort((one, other) => name(one).localeCompare(name(other))) : found;
}

/** Return the tiles grouped by their value of an axis. */
function grouped(list, axis) {
  const groups = new Map();
  for (const tile of list) {
    const value = tile.task.axes.get(axis) ?? "";
    if (!groups.has(value)) groups.set(value, []);
    groups.get(value).push(tile);
  }
  return groups;
}
