// Where answers come from: the server that sent this page, or what was recorded in it.

import { within } from "./scores.js";

const KEY = "m3-retrievers-key";

/** What went wrong, for people; kind: gone, key, busy or other. */
export class Problem extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** Keeps the key until the tab is closed, and nowhere else. */
export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** Returns answers of the server; begin: a new question, until when each is asked for once. */
export function served() {
  let answers = new Map();

  function once(path, body) {
    const name = JSON.stringify([path, body]);
    const kept = answers;
    if (!kept.has(name)) {
      const answer = request(path, body);
      kept.set(name, answer);
      answer.catch(() => kept.delete(name));
    }
    return kept.get(name);
  }

  return {
    questions: null,
    begin: () => {
      answers = new Map();
    },
    indexes: async () => (await request("indexes")).indexes,
    candidates: (query, { index, recall }) =>
      once("search", { query, index, recall, candidates: true }),
    reading: (query, index, id) => once("explain", { query, index, id, form: "page" }),
  };
}

async function request(path, body) {
  const key = sessionStorage.getItem(KEY);
  const headers = { "content-type": "application/json" };
  if (key) headers.authorization = `Bearer ${key}`;
  const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch {
    throw new Problem("gone", "The server does not answer. Is it still running?");
  }
  if (!answer.ok) throw await problemOf(answer);
  return answer.json();
}

async function problemOf(answer) {
  if (answer.status === 401) return new Problem("key", "The server asks for a key.");
  if (answer.status === 503) {
    const seconds = answer.headers.get("retry-after");
    const when = seconds ? `in ${seconds} s` : "a little later";
    return new Problem("busy", `The server is busy. Try again ${when}.`);
  }
  const said = await answer.json().catch(() => ({}));
  return new Problem("other", said.error ?? `The server answered with status ${answer.status}.`);
}

/** Returns what was computed when the page was made; depths only narrow it. */
export function recorded(data) {
  const answer = (query, index) => data.answers[query][index];
  return {
    questions: Object.keys(data.answers),
    begin: () => {},
    indexes: async () => data.indexes,
    candidates: async (query, { index, recall }) => {
      const { documents, candidates } = answer(query, index);
      return { documents, candidates: candidates.filter((one) => within(one, recall)) };
    },
    reading: async (query, index, id) => {
      const found = answer(query, index).readings[id];
      if (!found) throw new Problem("other", "Why this one matches was not recorded in this page.");
      return found;
    },
  };
}
