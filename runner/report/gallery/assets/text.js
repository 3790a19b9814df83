// Show foreign text safely, and create elements without markup.
const HIDDEN = new RegExp(
  "[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u2064" +
    "\\u2066-\\u206f\\ufeff\\ufff9-\\ufffb]", "g");
const hex = (char) => char.charCodeAt(0).toString(16).padStart(4, "0");
/** Return text with its invisible and direction-changing characters shown by their code. */
const plain = (text) => String(text).replace(HIDDEN, (char) => `‹${hex(char)}›`);
/** Return JSON with those characters escaped, since copied text may be pasted into a terminal. */
const escaped = (json) => json.replace(HIDDEN, (char) => `\\u${hex(char)}`);
/** Parse JSON with large numbers as strings, since a browser would round them. */
const exact = (json) =>
  JSON.parse(json.replace(/("(?:[^"\\]|\\.)*")|(-?\d[\d.eE+-]{15,})/g, (_, text, digits) => text ?? `"${digits}"`));
const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value));
/** Return the URL of a file relative to the page, with every special character encoded. */
const address = (file) => `./${file.split("/").map(encodeURIComponent).join("/")}`;

function make(tag, fields, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(fields ?? {})) {
    if (name === "class") element.className = value;
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return an element with foreign text that cannot change the direction of the text around it. */
const quote = (tag, text, kind = "") => make(tag, { class: kind, dir: "auto", textContent: plain(text) });

function when(iso) {
  return iso === null ? say("unknown") : new Date(iso).toLocaleString(LANGUAGE);
}

function lasting(seconds) {
  if (seconds < 60) return say("seconds", seconds.toFixed(seconds < 10 ? 1 : 0));
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? say("minutes", minutes) : say("hours", Math.floor(minutes / 60), minutes % 60);
}

function weight(bytes) {
  let value = bytes;
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 1000) return `${unit === "B" ? value : value.toFixed(1)} ${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(1)} TB`;
}
