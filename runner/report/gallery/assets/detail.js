// The dialog of one task: output, request, cost and error.
const dialog = document.getElementById("detail");

function open(at) {
  current = Math.max(0, Math.min(at, walk.length - 1));
  const { tile } = walk[current];
  const close = make("button", { type: "button", class: "close", title: say("close"), textContent: "✕", onclick: () => dialog.close() });
  const step = (by, word, sign) => make("button", {
    type: "button", title: say(word), textContent: sign, disabled: !walk[current + by], onclick: () => open(current + by) });
  const place = make("span", { textContent: say("of", number(current + 1), number(walk.length)) });
  dialog.replaceChildren(
    make("div", { class: "stage" }, large(tile)),
    make("section", {}, make("nav", {}, step(-1, "previous", "←"), place, step(1, "next", "→"), close), ...sections(tile)));
  if (!dialog.open) dialog.showModal();
  dialog.querySelector("section").scrollTop = 0;
}

function large({ task, output }) {
  if (!output) return errorOf(task);
  const [kind] = (output.type ?? "").split("/"), src = address(output.file);
  const lost = (event) => event.target.replaceWith(make("span", { class: "none", textContent: say("no_file") }));
  if (kind === "video") return make("video", { controls: true, autoplay: true, loop: true, muted: true, playsInline: true, src, onerror: lost });
  if (kind === "audio") return make("audio", { controls: true, src, onerror: lost });
  if (output.small === false) return make("span", { class: "none", textContent: say("no_preview") });
  return make("img", { alt: "", src, onerror: lost });
}

function sections({ task, output }) {
  const vars = exact(task.vars);
  return [
    make("h2", {}, make("i", { class: `dot ${task.state}` }), quote("span", output ? output.file : task.key.slice(0, 8))),
    task.error ? faultLines(task) : null,
    Object.keys(vars).length ? table("vars", Object.entries(vars)) : null,
    copying(task),
    table("request", Object.entries(exact(task.request))),
    table("facts", detailsOf(task, output)),
    output ? make("p", {}, make("a", { href: address(output.file), target: "_blank", rel: "noopener", textContent: say("open") })) : null,
  ].filter(Boolean);
}

function faultLines(task) {
  const [reason, code, message] = task.error;
  return make("div", { class: "why" }, make("b", { textContent: `${say(task.state)}: ` }), quote("b", reason),
    code ? quote("code", code) : null, message ? quote("p", message) : null);
}

function table(word, entries) {
  const lines = entries.flatMap(([name, value]) => [quote("dt", name), quote("dd", asText(value))]);
  return make("div", { class: "table" }, make("h3", { textContent: say(word) }), make("dl", {}, ...lines));
}

function detailsOf(task, output) {
  const took = task.submitted && task.finished ? (Date.parse(task.finished) - Date.parse(task.submitted)) / 1000 : null;
  return [
    [say("state"), say(task.state)], [say("provider"), task.provider], [say("model"), task.model],
    [say("price"), task.cost === null ? say("unknown") : `${task.cost} ${unitName(INFO.unit)}`.trim()],
    [say("queued_at"), when(task.queued)], [say("submitted_at"), when(task.submitted)], [say("finished_at"), when(task.finished)],
    [say("took"), took === null ? say("unknown") : lasting(took)], [say("attempts"), String(task.attempts)],
    [say("id"), task.id ?? say("unknown")], [say("key"), task.key],
    ...(output ? [[say("file"), `${output.file} · ${output.type ?? say("unknown")} · ${weight(output.bytes ?? 0)}`]] : []),
  ];
}

/** Return a button that copies the row of `items:` for this task; JSON is valid YAML. */
function copying(task) {
  const row = `- ${escaped(task.vars)}`;
  const text = make("textarea", { class: "row", readOnly: true, rows: 2, value: row, spellcheck: false });
  const button = make("button", { type: "button", textContent: say("copy_row") });
  button.onclick = async () => { button.textContent = say((await copied(row, text)) ? "copied" : "not_copied"); };
  return make("div", { class: "copy" }, button, text);
}

async function copied(row, text) {
  try {
    await navigator.clipboard.writeText(row);
    return true;
  } catch {
    // the clipboard API needs a secure context; the deprecated command works without one
    text.select();
    return document.execCommand("copy");
  }
}
