// The hybrid score, as scoring/hybrid_score.py has it: a weighted sum of each mode's part.

const NAMES = { bm25: "BM25", colbert: "ColBERT" };

/** Returns how a mode is written for people. */
export function nameOf(mode) {
  return NAMES[mode] ?? mode;
}

/** Returns a mode's weight; sparse is that of every lexical mode. */
export function weightOf(weights, mode) {
  return weights[mode === "bm25" ? "sparse" : mode];
}

/**
 * Returns the matches among the candidates, best first, each with its score and shares.
 * Candidates stand in order of insertion, which breaks ties: the sort is stable.
 */
export function ranked(candidates, index, weights) {
  const counted = index.weighted.filter((mode) => weightOf(weights, mode) > 0);
  const seen = [...index.legs, ...counted];
  return candidates
    .filter((candidate) => seen.some((mode) => candidate.scores[mode]))
    .map((candidate) => {
      const shares = {};
      let score = 0;
      for (const mode of counted) {
        shares[mode] = weightOf(weights, mode) * candidate.parts[mode];
        score += shares[mode];
      }
      return { candidate, score, shares };
    })
    .sort((a, b) => b.score - a.score);
}

/** Returns each match's place, from 1, by its id. */
export function places(matches) {
  return new Map(matches.map((match, at) => [match.candidate.id, at + 1]));
}

/** Returns whether a candidate was recalled by some leg within the depths; null is no bound. */
export function within(candidate, recall) {
  const found = Object.entries(candidate.places);
  return !found.length || found.some(([leg, place]) => {
    const depth = leg === "dense" ? recall.dense : recall.lexical;
    return depth === null || place <= depth;
  });
}
