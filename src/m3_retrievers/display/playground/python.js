// Settings as Python code that runs.

/** Returns a string as Python writes it; what is invisible or turns text around is escaped. */
export function quoted(text) {
  return JSON.stringify(text).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0);
    return code > 0xffff
      ? `\\U${code.toString(16).padStart(8, "0")}`
      : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

const MADE = `from m3_retrievers import HybridWeights, Recall

# retriever: the HybridRetriever that this page shows`;

/** Returns code that searches with these settings and prints the first k hits. */
export function asPython(index, { weights, recall }, question, k) {
  const depth = (value) => (value === null ? "None" : String(value));
  return [
    index.code || MADE,
    index.fused ? "retriever.fusion = None" : null,
    `retriever.weights = HybridWeights(dense=${weights.dense}, sparse=${weights.sparse}, ` +
      `colbert=${weights.colbert})`,
    `retriever.recall = Recall(dense=${depth(recall.dense)}, lexical=${depth(recall.lexical)})`,
    `for hit in retriever.search(${quoted(question)}, k=${k}):`,
    "    print(round(hit.score, 3), hit.id, hit.text[:80])",
    "",
  ].filter((line) => line !== null).join("\n");
}
