// The settings of one column: which index, the weights, the depths.

import { make, newId } from "./dom.js";
import { nameOf, weightOf } from "./scores.js";

const DEPTHS = [5, 10, 20, 50, 100, 200, 500, 1000];
const STEP = 0.05;

/** Returns the settings that an index has of its own. */
export function ownSettings(index) {
  return { index: index.name, weights: { ...index.weights }, recall: { ...index.recall } };
}

/** The controls of a setting; tells when weights move, come to rest, or another search is due. */
export class Settings {
  constructor(indexes, setting, { fixed, moved, rested, again, copied }) {
    Object.assign(this, { indexes, setting, fixed, moved, rested, again, copied });
    this.element = make("div", { className: "settings" });
    this.draw();
  }

  get index() {
    return this.indexes.find((one) => one.name === this.setting.index);
  }

  draw() {
    const { index } = this;
    const reset = make("button", { type: "button", className: "reset" }, "Reset");
    reset.addEventListener("click", () => this.take(ownSettings(index), ".reset"));
    const copy = make("button", { type: "button", className: "python" }, "Copy as Python");
    copy.addEventListener("click", () => this.copied(this.index, this.setting));
    this.element.replaceChildren(
      ...this.choice(),
      ...index.weighted.map((mode) => this.weight(mode)),
      ...this.depths(),
      ...lacking(index),
      make("div", { className: "actions" }, reset, copy),
    );
  }

  /** Takes other settings, and searches again where candidates may differ; focused: its control. */
  take(setting, focused) {
    const before = JSON.stringify([this.setting.index, this.setting.recall]);
    this.setting = setting;
    this.draw();
    this.element.querySelector(focused).focus();
    if (JSON.stringify([setting.index, setting.recall]) !== before) this.again();
    else {
      this.moved();
      this.rested();
    }
  }

  choice() {
    if (this.indexes.length < 2) return [];
    const select = make("select", { id: newId() }, ...this.indexes.map(({ name, model }) =>
      make("option", { value: name, selected: name === this.setting.index }, `${name} · ${model}`)));
    select.addEventListener("change", () => {
      this.take(ownSettings(this.indexes.find((one) => one.name === select.value)), "select");
    });
    const label = make("label", { htmlFor: select.id }, "Index and model");
    return [make("div", { className: "choice" }, label, select)];
  }

  weight(mode) {
    const { weights } = this.setting;
    const own = weightOf(weights, mode);
    const most = Math.max(2, Math.ceil(own));
    return slider({
      label: make("span", {}, make("span", { className: `swatch ${mode}` }), ` ${nameOf(mode)}`),
      name: `Weight of ${nameOf(mode)}`,
      range: { min: 0, max: most, step: STEP, value: own },
      shown: () => String(weightOf(weights, mode)),
      moved: (value) => {
        weights[mode === "bm25" ? "sparse" : mode] = Math.round(value * 100) / 100;
        this.moved();
      },
      rested: () => this.rested(),
    });
  }

  depths() {
    const { legs, recall } = this.index;
    const bounds = { dense: legs.includes("dense"), lexical: legs.some((leg) => leg !== "dense") };
    return Object.keys(bounds).filter((leg) => bounds[leg]).map((leg) => {
      const steps = stepsFor(recall[leg], this.fixed);
      const text = (depth) => (depth === null ? "all" : String(depth));
      return slider({
        label: make("span", {}, `${leg} depth`),
        name: `Depth of the ${leg} leg`,
        range: { min: 0, max: steps.length - 1, step: 1, value: steps.indexOf(this.setting.recall[leg]) },
        shown: () => text(this.setting.recall[leg]),
        moved: (at) => {
          this.setting.recall[leg] = steps[at];
        },
        rested: () => this.again(),
      });
    });
  }
}

/** Returns the depths to choose from; fixed: none beyond what was recorded. */
function stepsFor(own, fixed) {
  if (own === null) return [...DEPTHS, null];
  const steps = [...new Set([...DEPTHS, own])].sort((a, b) => a - b);
  return fixed ? steps.filter((depth) => depth <= own) : steps;
}

function lacking({ weighted, outputs, fused }) {
  const notes = [];
  if (!weighted.includes("colbert")) {
    notes.push(outputs.includes("colbert")
      ? "This index keeps no ColBERT vectors, so there is no weight for them."
      : "This model has no ColBERT head.");
  }
  if (!outputs.includes("sparse")) notes.push("This model has no sparse head.");
  if (fused) notes.push("The retriever fuses ranked lists; here the hybrid score orders.");
  return notes.map((note) => make("p", { className: "quiet" }, note));
}

function slider({ label, name, range, shown, moved, rested }) {
  const input = make("input", { type: "range", id: newId(), ...range, "aria-label": name });
  const output = make("output", { htmlFor: input.id }, shown());
  const tell = () => {
    output.textContent = shown();
    input.setAttribute("aria-valuetext", shown());
  };
  tell();
  input.addEventListener("input", () => {
    moved(Number(input.value));
    tell();
  });
  input.addEventListener("change", rested);
  return make("div", { className: "control" }, make("label", { htmlFor: input.id }, label), input, output);
}
