"""Write a random checkpoint of BGE-M3's full size: 568 million parameters, 2.3 GB.

The weights are random, so it ranks nothing sensibly; the arithmetic costs what the real
model's costs. The tokenizer is made from the standard library's texts, and its vocabulary
filled up to XLM-R's 250,002 pieces::

    python benchmarks/full_size.py FOLDER
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from common import standard_library_texts

from checkpoints import Shape, write_m3
from tokenizer_files import write_xlm_roberta_tokenizer

VOCABULARY = 250_002
SHAPE = Shape(hidden=1024, layers=24, attention_heads=16, feed_forward=4096)
SMALL = Shape(hidden=384, layers=6, attention_heads=12, feed_forward=1536)


def write_full_size_m3(folder: Path) -> Path:
    """Write the checkpoint into the folder, unless it is there; returns the folder."""
    return _write(folder, SHAPE, VOCABULARY)


def write_small_m3(folder: Path) -> Path:
    """Write one of MiniLM's size, 22 million parameters, unless it is there."""
    return _write(folder, SMALL, 30_000)


def _write(folder: Path, shape: Shape, vocabulary_size: int) -> Path:
    if not (folder / "modules.json").exists():  # the last file to be written
        folder.mkdir(parents=True, exist_ok=True)
        texts = standard_library_texts(2_000, seed=7)
        write_xlm_roberta_tokenizer(folder, texts=texts, vocabulary_size=vocabulary_size)
        write_m3(folder, shape, vocabulary_size=vocabulary_size)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    print(write_full_size_m3(parser.parse_args().folder))


if __name__ == "__main__":
    main()
