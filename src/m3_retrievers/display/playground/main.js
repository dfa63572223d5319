// The page: a question goes to each column, weights reorder what is there.

import { Column } from "./column.js";
import { byId } from "./dom.js";
import { asPython } from "./python.js";
import { Problem, keepKey, recorded, served } from "./source.js";
import { ownSettings } from "./settings.js";

const LETTERS = ["A", "B"];
const data = JSON.parse(byId("recorded").textContent);
const source = data ? recorded(data) : served();
const columns = [];
let indexes = [];
let question = "";

const hooks = {
  moved: () => show(),
  rested: (column) => {
    announce([column]);
    column.mark();
  },
  again: (column) => search([column]),
  copied: (index, setting) => showCode(asPython(index, setting, question, 10)),
};

async function start() {
  tell(null);
  try {
    indexes = await source.indexes();
  } catch (problem) {
    tell(problem, start);
    return;
  }
  if (!indexes.length) {
    tell(new Problem("other", "This server has a model and no index. Start it with one: m3-retrievers serve INDEX."));
    return;
  }
  const [first] = indexes;
  byId("about").textContent = indexes.length > 1
    ? `${indexes.length} indexes`
    : `${first.name} · ${first.model}`;
  byId("compare").disabled = false;
  if (!columns.length) {
    addColumn(ownSettings(first));
    show();
  }
  if (source.questions) chooseQuestion();
  if (question) search(columns);
}

function addColumn(setting) {
  const column = new Column(null, source, indexes, setting, hooks);
  columns.push(column);
  arrange();
}

function arrange() {
  columns.forEach((column, at) => column.name(columns.length > 1 ? `Setting ${LETTERS[at]}` : null));
  byId("columns").replaceChildren(...columns.map((column) => column.element));
  byId("columns").classList.toggle("two", columns.length > 1);
  byId("compare").setAttribute("aria-pressed", String(columns.length > 1));
}

function chooseQuestion() {
  const select = byId("questions");
  byId("question").hidden = true;
  select.hidden = false;
  byId("search").querySelector("label").htmlFor = select.id;
  byId("search").querySelector("[type=submit]").hidden = true;
  select.replaceChildren(...source.questions.map((text) => new Option(text)));
  select.addEventListener("change", () => ask(select.value));
  if (source.questions.length) ask(select.value);
}

function ask(text) {
  if (!text.trim()) return;
  question = text;
  source.begin();
  search(columns);
}

async function search(asked) {
  tell(null);
  if (!question || !asked.length) return; // a question before the indexes are there waits for them
  byId("status").textContent = "Searching…";
  try {
    await Promise.all(asked.map((column) => column.search(question)));
  } catch (problem) {
    tell(problem, () => search(asked));
    return;
  }
  show();
  announce(asked);
  for (const column of asked) column.mark();
}

/** Shows every column; the second says where each hit stood in the first. */
function show() {
  const [first, second] = columns;
  const found = first.show();
  if (second) second.show(sharing(found, second) ? found : null);
}

/** Returns whether documents of one column are in the other: places compare, across models too. */
function sharing(found, { candidates }) {
  return candidates.some(({ id }) => found.has(id));
}

/** Says for those who do not see it what came out. */
function announce(told) {
  const said = told.map(({ title, said: { textContent }, matches: [first] }) => {
    const text = first ? `${textContent}. First: ${first.candidate.id}` : textContent;
    return title ? `${title}: ${text}` : text;
  });
  byId("status").textContent = said.join(" ");
}

/** Says what went wrong, and offers to try again; null: nothing did. */
function tell(problem, again) {
  const box = byId("problem");
  box.replaceChildren();
  if (!problem) return;
  if (!(problem instanceof Problem)) throw problem;
  if (problem.kind === "key") {
    askForKey(again);
    return;
  }
  box.append(document.createTextNode(problem.message));
  if (again) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Try again" });
    button.addEventListener("click", again);
    box.append(button);
  }
}

function askForKey(again) {
  const dialog = byId("key");
  dialog.onclose = () => {
    const value = byId("key-value").value;
    byId("key-value").value = "";
    if (dialog.returnValue !== "used") {
      tell(new Problem("other", "Without its key the server answers nothing."), again);
      return;
    }
    keepKey(value);
    byId("key-said").textContent = "The server did not accept that key.";
    again();
  };
  dialog.returnValue = "";
  dialog.showModal();
}

function showCode(text) {
  byId("code-text").value = text;
  byId("code-said").textContent = "";
  byId("code").showModal();
  byId("code-copy").focus();
}

async function copyCode() {
  const text = byId("code-text");
  text.select();
  let done = true;
  try {
    await navigator.clipboard.writeText(text.value);
  } catch {
    done = document.execCommand("copy"); // a frame may not have the clipboard
  }
  byId("code-said").textContent = done ? "Copied." : "It is selected: copy it with your keyboard.";
}

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  ask(byId("question").value);
});
byId("compare").addEventListener("click", () => {
  if (columns.length > 1) {
    columns.pop();
    arrange();
    show();
    return;
  }
  const other = indexes[Math.min(1, indexes.length - 1)];
  addColumn(ownSettings(other));
  show();
  search([columns[1]]);
});
byId("key-close").addEventListener("click", () => byId("key").close());
byId("code-copy").addEventListener("click", copyCode);
byId("code-close").addEventListener("click", () => byId("code").close());
start();
