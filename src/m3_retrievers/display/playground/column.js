// One column: a setting, the candidates it recalled, and the hits in the order of its weights.

import { make } from "./dom.js";
import { Hit, marked } from "./hit.js";
import { places, ranked, weightOf } from "./scores.js";
import { Settings } from "./settings.js";

const PAGE = 10;

export class Column {
  /** title: null for the only one. hooks: what main does when settings change. */
  constructor(title, source, indexes, setting, hooks) {
    Object.assign(this, { source, hooks, title });
    this.clear();
    this.settings = new Settings(indexes, setting, {
      fixed: source.questions !== null,
      copied: hooks.copied,
      moved: () => hooks.moved(this),
      rested: () => hooks.rested(this),
      again: () => hooks.again(this),
    });
    this.list = make("ol", { className: "hits" });
    this.said = make("p", { className: "quiet" });
    this.legend = make("p", { className: "legend quiet" });
    this.more = make("button", { type: "button", hidden: true }, "Show more");
    this.more.addEventListener("click", () => {
      const next = this.shown;
      this.shown += PAGE;
      hooks.moved(this);
      hooks.rested(this);
      this.list.children[next].querySelector("button").focus();
    });
    this.heading = make("h2", {});
    this.results = make(
      "div", { className: "results" },
      make("div", { className: "counted" }, this.said, this.legend), this.list, this.more,
    );
    this.element = make("section", { className: "column" }, this.heading, this.settings.element, this.results);
    this.name(title);
  }

  name(title) {
    this.title = title;
    this.heading.textContent = title ?? "Settings";
  }

  clear() {
    this.question = "";
    this.candidates = [];
    this.documents = 0;
    this.matches = [];
    this.hits = new Map();
    this.shown = PAGE;
  }

  /** Asks for the candidates of a question; another question meanwhile makes the answer void. */
  async search(question) {
    const asked = (this.asked = {});
    this.element.setAttribute("aria-busy", "true");
    try {
      const found = await this.source.candidates(question, this.settings.setting);
      if (this.asked !== asked) return;
      this.clear();
      this.question = question;
      this.candidates = found.candidates;
      this.documents = found.documents;
    } finally {
      if (this.asked === asked) this.element.removeAttribute("aria-busy");
    }
  }

  /** Orders by the weights, and shows the first; before: the places of another column. */
  show(before = null) {
    const { index, setting } = this.settings;
    const weighed = index.weighted.some((mode) => weightOf(setting.weights, mode) > 0);
    this.matches = weighed ? ranked(this.candidates, index, setting.weights) : [];
    const own = before ?? places(ranked(this.candidates, index, index.weights));
    const most = this.matches[0]?.score ?? 0;
    const shown = this.matches.slice(0, this.shown);
    const elements = shown.map((match, at) => {
      const hit = this.hitOf(match.candidate);
      hit.show(match, at + 1, most, own.get(match.candidate.id));
      return hit.element;
    });
    this.list.replaceChildren(...elements);
    this.more.hidden = this.matches.length <= this.shown;
    this.legend.replaceChildren(...(shown.length ? legendOf(index) : []));
    this.said.textContent = weighed ? this.counted() : "Give one mode a weight above 0.";
    return places(this.matches);
  }

  counted() {
    if (!this.question) {
      return "Ask a question. What the legs recall is scored in every mode, and weights reorder it at once.";
    }
    if (!this.documents) return "The index is empty.";
    if (!this.matches.length) return "Nothing in the index matches.";
    const shown = Math.min(this.shown, this.matches.length);
    return `${shown} of ${this.matches.length} candidates, of ${this.documents} documents`;
  }

  hitOf(candidate) {
    if (!this.hits.has(candidate.id)) {
      const { question } = this;
      const { name } = this.settings.index;
      const explain = () => this.source.reading(question, name, candidate.id);
      this.hits.set(candidate.id, new Hit(candidate, explain));
    }
    return this.hits.get(candidate.id);
  }

  /** Marks what matched in the hits that are shown, one after the other, best first. */
  async mark() {
    const { question } = this;
    for (const { candidate } of this.matches.slice(0, this.shown)) {
      const hit = this.hitOf(candidate);
      if (hit.marked) continue;
      hit.marked = true;
      try {
        hit.mark(await hit.explain());
      } catch {
        return; // whoever opens the hit is told why
      }
      if (this.question !== question) return;
    }
  }
}

/** Returns what a tint and an underline mean, where the model has them. */
function legendOf({ weighted, outputs }) {
  const lexical = weighted.some((mode) => mode === "sparse" || mode === "bm25");
  return marked([
    ...(lexical ? [{ text: "shared term", lexical: 1, aligned: 0 }] : []),
    ...(outputs.includes("colbert") ? [{ text: "best match of a query token", lexical: 0, aligned: 1 }] : []),
  ]);
}
