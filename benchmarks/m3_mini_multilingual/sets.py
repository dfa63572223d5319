"""Training lines and validation collections for m3-mini-multilingual, from training splits only.

As ``training_sets.py`` does for m3-mini; squad_en is left out, for its paragraphs are those of the
cross-language test. Japanese, which has most pairs, gives as many as the next language::

    python benchmarks/m3_mini_multilingual/sets.py --data DATA --out FOLDER
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from training_sets import held_out, read_set, training_lines, write_collection

from m3_retrievers.training import write_examples

# queries held out for validation; 0 where there is no collection to search
SETS = {
    "arcd_ar": 100,
    "cmrc2018_zh": 100,
    "drcd_zh_hant": 100,
    "fairytaleqa_sections_en": 100,
    "jaquad_ja": 100,
    "piaf_fr": 100,
    "tquad_tr": 100,
    "tydiqa_id": 100,
    "klue_nli_ko": 0,
    "jnli_ja": 0,
    "selqa_en": 0,
    "scitldr_en": 0,
}
MOST = 4000
NEGATIVES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    (options.out / "train").mkdir(parents=True, exist_ok=True)
    for name, count in SETS.items():
        one = read_set(options.data, name)
        kept = list(one.pairs)
        random.Random(0).shuffle(kept)
        one = replace(one, pairs=kept[: MOST + count])
        held = held_out(one.pairs, count, seed=0)
        questions = {pair.query for pair in held}
        left = [pair for pair in one.pairs if pair.query not in questions]
        examples = list(training_lines(left, one.texts, source=name, most=NEGATIVES))
        write_examples(options.out / "train" / f"{name}.jsonl", examples)
        if held:
            write_collection(options.out / "valid" / name, one, [p for p in one.pairs if p in held])
        print(f"{name}: {len(examples)} to train on, {len(held)} held out")


if __name__ == "__main__":
    main()
