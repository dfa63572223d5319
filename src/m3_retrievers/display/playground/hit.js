// One hit of a list: its place, its score as a bar, its text with what matched, and why.

import { foreign, make, newId, spoken } from "./dom.js";
import { heatMap } from "./heat_map.js";
import { nameOf } from "./scores.js";

// Of the strongest match of a text, below which one is not pointed at.
const FAINT = 0.2;
const EMPTY = "(an empty text)";
const MADE_UP = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

/** A hit that is drawn once, and shown again whenever scores change. */
export class Hit {
  /** explain: gives why it matches, a promise of a reading. */
  constructor(candidate, explain) {
    this.candidate = candidate;
    this.explain = explain;
    this.place = make("span", { className: "place" });
    this.score = make("span", { className: "score" });
    this.move = make("span", { className: "move" });
    this.bar = make("div", { className: "bar", "aria-hidden": "true" });
    this.shares = make("p", { className: "shares quiet" });
    this.text = make("p", { className: "text", dir: "auto" }, candidate.text || EMPTY);
    this.detail = make("div", { className: "detail", id: newId(), hidden: true });
    this.button = make(
      "button",
      { type: "button", className: "head", "aria-expanded": "false", "aria-controls": this.detail.id },
      this.place, titleOf(candidate), this.move, this.score,
    );
    this.button.addEventListener("click", () => this.toggle());
    const body = make("div", { className: "body" }, this.bar, this.shares, this.text);
    body.addEventListener("click", () => {
      if (!String(getSelection())) this.toggle();
    });
    this.element = make(
      "li", { className: "hit" },
      make("h3", {}, this.button), body, ...aboutOf(candidate), this.detail,
    );
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || this.detail.hidden) return;
      this.toggle();
      this.button.focus();
    });
  }

  /** Shows place, score and shares; most: the score whose bar is full; before: its other place. */
  show({ score, shares }, place, most, before) {
    this.place.textContent = `${place}`;
    this.score.textContent = score.toFixed(3);
    this.move.replaceChildren(...moveOf(place, before));
    const parts = Object.entries(shares);
    this.bar.replaceChildren(...parts.map(([mode, share]) => {
      const part = make("span", { className: `mode ${mode}` });
      part.style.width = `${(100 * Math.max(0, share)) / (most || 1)}%`;
      return part;
    }));
    this.shares.replaceChildren(...parts.map(([mode, share]) =>
      make("span", { className: "share" },
        make("span", { className: `swatch ${mode}`, "aria-hidden": "true" }),
        `${nameOf(mode)} ${share.toFixed(3)}`)));
  }

  /** Shows what matched in the text. */
  mark(reading) {
    this.element.dataset.read = "yes";
    this.text.replaceChildren(...(reading.document.length ? marked(reading.document) : [EMPTY]));
  }

  async toggle() {
    const opened = this.detail.hidden;
    this.detail.hidden = !opened;
    this.button.setAttribute("aria-expanded", String(opened));
    if (!opened || this.explained) return;
    this.detail.replaceChildren(make("p", { className: "quiet" }, "Reading both texts…"));
    try {
      const reading = await this.explain();
      this.explained = true;
      this.mark(reading);
      this.detail.replaceChildren(...detailOf(reading));
    } catch (problem) {
      this.detail.replaceChildren(make("p", { role: "alert" }, problem.message));
    }
  }
}

/** Returns a text's pieces: shared terms tinted, what the query's tokens found underlined. */
export function marked(pieces) {
  return pieces.map((piece) => {
    if (piece.omitted) {
      return make("span", { className: "quiet", title: `${piece.omitted} characters left out` }, " … ");
    }
    if (!piece.lexical && piece.aligned < FAINT) return piece.text;
    const mark = make("mark", {}, piece.text);
    mark.classList.toggle("lexical", piece.lexical > 0);
    mark.classList.toggle("aligned", piece.aligned >= FAINT);
    mark.style.setProperty("--lexical", piece.lexical);
    mark.style.setProperty("--aligned", piece.aligned);
    return mark;
  });
}

function titleOf({ id }) {
  // an id that was made up says nothing after its beginning
  return foreign(MADE_UP.test(id) ? `${id.slice(0, 8)}…` : id, "id");
}

function aboutOf({ metadata }) {
  const facts = Object.entries(metadata);
  if (!facts.length) return [];
  return [make("p", { className: "about quiet" }, ...facts.map(([name, value]) =>
    foreign(`${name}: ${typeof value === "string" ? value : JSON.stringify(value)}`)))];
}

function moveOf(place, before) {
  if (before === place) return [];
  if (before === undefined) return ["new"];
  const up = before > place;
  const steps = Math.abs(before - place);
  return [
    make("span", { "aria-hidden": "true" }, `${up ? "▲" : "▼"}${steps}`),
    spoken(`${steps} ${up ? "up" : "down"}`),
  ];
}

function detailOf(reading) {
  return [
    reading.heat_map?.similarities[0]?.length ? heatMap(reading.heat_map) : null,
    reading.terms.length ? terms(reading) : null,
    ...reading.notes.map((note) => make("p", { className: "quiet" }, note)),
  ].filter(Boolean);
}

function terms({ terms: shared, lexical_mode: mode, more_terms: more }) {
  const most = Math.max(...shared.map((one) => one.score));
  const rows = shared.map((one) => {
    const level = make("span", { className: `mode ${mode}` });
    level.style.width = `${(100 * Math.max(0, one.score)) / (most || 1)}%`;
    return make("tr", {},
      make("th", { scope: "row" }, foreign(one.term), one.expansion ? " (in neither text)" : ""),
      make("td", { className: "number" }, one.score.toFixed(3)),
      make("td", { className: "level", "aria-hidden": "true" }, level));
  });
  return make("figure", {},
    make("figcaption", {}, `Shared terms (${nameOf(mode)})${more ? `, and ${more} more` : ""}`),
    make("table", { className: "terms" }, make("tbody", {}, ...rows)));
}
