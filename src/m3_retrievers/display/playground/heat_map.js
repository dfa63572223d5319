// The alignment: which query token found which document token, as a table of colours.

import { foreign, make, newId } from "./dom.js";

const MOVES = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  Home: [0, -Infinity],
  End: [0, Infinity],
};

/** Returns the heat map of tokens there are: a cell a pair of them, each row's best one ringed. */
export function heatMap(map) {
  const values = map.similarities.flat();
  const least = Math.min(...values);
  const most = Math.max(...values);
  const said = make("p", { className: "pointed", role: "status" });
  const cells = map.similarities.map((row, at) =>
    row.map((value, column) => {
      const cell = make("td", { tabIndex: -1 });
      cell.style.setProperty("--heat", (value - least) / (most - least || 1));
      const best = map.best[at] === map.first + column;
      cell.classList.toggle("best", best);
      const pair = `${map.rows[at]} × ${map.columns[column]}`;
      cell.setAttribute("aria-label", `${pair}: ${value.toFixed(3)}${best ? ", best match" : ""}`);
      return cell;
    }),
  );
  const table = make(
    "table",
    { className: "heat", role: "grid" },
    make("thead", {}, make("tr", {}, make("td"), ...map.columns.map((label) => head("col", label)))),
    make("tbody", {}, ...cells.map((row, at) =>
      make("tr", {}, head("row", map.rows[at]), ...row))),
  );
  const id = newId();
  table.setAttribute("aria-labelledby", id);
  watch(table, cells, (row, column) => say(said, map, row, column));
  // the keys begin at the greatest similarity
  const row = map.similarities.findIndex((found) => found.includes(most));
  const column = map.similarities[row].indexOf(most);
  cells[row][column].tabIndex = 0;
  say(said, map, row, column);
  return make(
    "figure",
    {},
    make("figcaption", { id }, caption(map)),
    make("div", { className: "wide" }, table),
    scale(least, most),
    said,
  );
}

function head(scope, label) {
  return make("th", { scope }, foreign(label));
}

function caption(map) {
  const score = `ColBERT ${map.score.toFixed(3)}: the mean of the ringed best matches.`;
  const shown = map.columns.length;
  if (shown === map.length) return score;
  const outside = map.best.filter((best) => best < map.first || best >= map.first + shown).length;
  const part = `Tokens ${map.first + 1}–${map.first + shown} of ${map.length} are drawn`;
  return `${score} ${part}; ${outside} of ${map.best.length} best matches lie outside.`;
}

function scale(least, most) {
  return make(
    "p",
    { className: "scale quiet" },
    make("span", {}, least.toFixed(2)),
    make("span", { className: "ramp", "aria-hidden": "true" }),
    make("span", {}, most.toFixed(2)),
    make("span", {}, "similarity"),
  );
}

function say(said, map, row, column) {
  const value = map.similarities[row][column].toFixed(3);
  const best = map.best[row] === map.first + column ? ", best match" : "";
  said.replaceChildren(
    foreign(map.rows[row]), " × ", foreign(map.columns[column]), ` ${value}${best}`,
  );
}

/** Tells of the cell under the pointer, or of the one that the arrow keys lead to. */
function watch(table, cells, tell) {
  const places = new Map();
  cells.forEach((row, at) => row.forEach((cell, column) => places.set(cell, [at, column])));
  const tellOf = (event) => {
    const place = places.get(event.target);
    if (place) tell(...place);
  };
  table.addEventListener("pointerover", tellOf);
  table.addEventListener("focusin", tellOf);
  table.addEventListener("keydown", (event) => {
    const place = places.get(event.target);
    const move = MOVES[event.key];
    if (!place || !move) return;
    event.preventDefault();
    const row = bounded(place[0] + move[0], cells.length);
    const next = cells[row][bounded(place[1] + move[1], cells[row].length)];
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

function bounded(at, length) {
  return Math.max(0, Math.min(length - 1, at));
}
