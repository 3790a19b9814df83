// The live page: jobs as the server pushes them, latest change first, without polling.
const jobs = new Map();
const main = document.getElementById("jobs"), link = document.getElementById("link");
/** Seconds by which this machine's clock is ahead of the server's. */
let ahead = 0;
const STAGES = [
  ["done", ["done"]], ["ready", ["ready"]], ["running", ["running"]], ["queued", ["queued", "submitting"]],
  ["in_doubt", ["in_doubt"]], ["held", ["held"]], ["failed", ["failed"]], ["stranded", ["stranded"]],
];
const VIDEOS = /\.(mp4|webm|mov)$/, IMAGES = /\.(png|jpg|webp|gif|avif)$/;

function since(seconds) {
  const past = Math.max(0, Date.now() / 1000 - ahead - seconds);
  return past < 5 ? say("just_now") : say("ago", lasting(past));
}

function cardOf(job) {
  if (job.trouble) return make("article", {}, quote("h2", job.job), quote("p", say("trouble", job.trouble), "why"));
  const state = make("span", { class: job.running ? "on" : "off", textContent: say(job.running ? "running_now" : "resting") });
  if (job.pretend) state.textContent += ` · ${say("pretend")}`;
  const done = make("span", { class: "share", textContent: `${number(job.counts.done ?? 0)} / ${number(job.total)}` });
  const page = job.page ? make("a", { href: `jobs/${job.id}/index.html`, target: "_blank", rel: "noopener", textContent: say("gallery") }) : null;
  const card = make("article", {}, make("header", {}, quote("h2", job.job), state, done, page), barOf(job), stagesOf(job),
    make("p", { class: "facts" }, ...figuresOf(job)), issuesOf(job), filesOf(job), quote("small", job.directory));
  card.dataset.job = job.id;
  return card;
}

function barOf(job) {
  const bar = make("div", { class: "bar", role: "img", "aria-label": `${job.counts.done ?? 0} / ${job.total}` });
  for (const [name, states] of STAGES) {
    const count = states.reduce((sum, state) => sum + (job.counts[state] ?? 0), 0);
    if (count) { const share = make("i", { class: name }); share.style.flexGrow = count; bar.append(share); }
  }
  return bar;
}

function stagesOf(job) {
  const line = make("ul", { class: "stages" });
  for (const [name, states] of STAGES) {
    const count = states.reduce((sum, state) => sum + (job.counts[state] ?? 0), 0);
    const word = name === "queued" ? "to_submit" : name;
    if (count) line.append(make("li", {}, make("i", { class: `dot ${name}` }), make("b", { textContent: number(count) }), ` ${say(word)}`));
  }
  return line;
}

function figuresOf(job) {
  const open = STAGES.slice(1, 5).some(([, states]) => states.some((state) => job.counts[state]));
  const rates = job.running ? job.providers.map(({ name, rate, limit }) =>
    plain(limit ? say("rate", name, number(rate), number(limit)) : say("rate_alone", name, number(rate)))) : [];
  const cost = !job.cost && !job.max_cost ? "" : job.max_cost
    ? say("cost_of", number(job.cost ?? 0), number(job.max_cost), unitName(job.unit)) : say("cost_only", number(job.cost), unitName(job.unit));
  const eta = job.running && open ? (job.eta === null ? say("eta_unknown") : say("eta", lasting(job.eta))) : "";
  const changed = make("time", { textContent: say("changed", since(job.changed)) });
  changed.dataset.at = job.changed;
  return [...rates, plain(job.wait ?? ""), eta, cost.trim()].filter(Boolean).map((text) => make("span", { textContent: text })).concat(changed);
}

function issuesOf(job) {
  return make("ul", { class: "faults" }, ...job.faults.map(({ state, reason, message, count }) =>
    make("li", {}, make("i", { class: `dot ${state}` }), make("b", { textContent: `${number(count)} ${say(state)} ` }),
      quote("span", reason || "–"), message ? quote("span", ` ${message}`, "soft") : null)));
}

function filesOf(job) {
  return make("div", { class: "files" }, ...job.files.map(({ file }) => {
    const href = `jobs/${job.id}/${file.split("/").map(encodeURIComponent).join("/")}`;
    const inside = VIDEOS.test(file) ? make("video", { muted: true, preload: "metadata", src: `${href}#t=0.1` })
      : IMAGES.test(file) ? make("img", { loading: "lazy", alt: "", src: href }) : quote("span", file);
    return make("a", { href, target: "_blank", rel: "noopener", title: plain(file) }, inside);
  }));
}

/** Replace a parent's children; a child that stays is not moved, so that its image is not loaded again. */
function settle(parent, children) {
  children.forEach((child, at) => { if (parent.children[at] !== child) parent.insertBefore(child, parent.children[at] ?? null); });
  while (parent.children.length > children.length) parent.lastElementChild.remove();
}

function put(job) {
  const old = jobs.get(job.id)?.card, card = cardOf(job);
  const alike = old?.children.length === card.children.length;
  if (alike) {
    [...card.children].forEach((child, at) => {
      if (child.className !== "files") { old.children[at].replaceWith(child); return; }
      const kept = new Map([...old.children[at].children].map((each) => [each.getAttribute("href"), each]));
      settle(old.children[at], [...child.children].map((each) => kept.get(each.getAttribute("href")) ?? each));
    });
  }
  jobs.set(job.id, { job, card: alike ? old : card });
}

function show(update) {
  ahead = Date.now() / 1000 - update.now;
  update.jobs.forEach(put);
  for (const id of jobs.keys()) if (!update.known.includes(id)) jobs.delete(id);
  const order = [...jobs.values()].sort((one, other) =>
    Number(other.job.running ?? false) - Number(one.job.running ?? false) || (other.job.changed ?? 0) - (one.job.changed ?? 0));
  const more = update.more ? [make("p", { class: "soft", textContent: say("more_jobs", number(update.more)) })] : [];
  const none = order.length ? [] : [make("p", { class: "soft", textContent: say("no_jobs") })];
  settle(main, [...order.map(({ card }) => card), ...more, ...none]);
}

document.documentElement.lang = LANGUAGE;
const source = new EventSource("events");
source.addEventListener("jobs", (event) => show(JSON.parse(event.data)));
source.onopen = () => { link.textContent = say("live"); link.className = "on"; };
source.onerror = () => { link.textContent = say("lost"); link.className = "off"; };
setInterval(() => {
  for (const time of document.querySelectorAll("time")) time.textContent = say("changed", since(Number(time.dataset.at)));
}, 5000);
