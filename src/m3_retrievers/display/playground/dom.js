// Elements. Whatever comes from a document, an id or a model goes in as text, never as markup.

/** Returns an element; names with a dash, and role, are attributes, others properties. */
export function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** Returns foreign text whose direction, overrides included, ends where the text does. */
export function foreign(text, className = "") {
  return make("bdi", { className }, text);
}

/** Returns text for screen readers alone. */
export function spoken(text) {
  return make("span", { className: "spoken" }, text);
}

export function byId(id) {
  return document.getElementById(id);
}

let lastId = 0;

/** Returns an id that no other element has. */
export function newId() {
  lastId += 1;
  return `part-${lastId}`;
}
