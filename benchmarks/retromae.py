"""Does RetroMAE help? A small BERT from nothing, fine-tuned with and without it.

A WordPiece vocabulary of 4,000 pieces and a random BERT (2 layers, width 128, CLS pooling) are
made from the passages of the given training lines; one copy is pre-trained on the passages'
raw text, then both are fine-tuned by ``m3_retrievers.training`` on the same lines with the same
seeds (dense mode alone), and measured on validation queries. The lines and the collection are
those that training_sets.py writes; about twenty minutes on one core::

    python benchmarks/retromae.py --lines TRAIN/train/squad_en.jsonl --valid TRAIN/valid/squad_en
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from common import RESULTS, machine, timed, write_result
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

from m3_retrievers import HeadSpec, M3Encoder
from m3_retrievers.evaluation import evaluate, read_collection
from m3_retrievers.training import (
    BatchSettings,
    RetroMAESettings,
    TrainSettings,
    pretrain,
    read_examples,
    train,
)

HEADS = HeadSpec(sparse=False, colbert="identity")
PIECES = 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=Path, required=True)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--pretrain-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    examples = read_examples(options.lines)
    passages = list(dict.fromkeys(text for e in examples for text in (*e.positives, *e.negatives)))
    collection = read_collection(options.valid)
    result = {
        "machine": machine(threads=torch.get_num_threads()),
        "passages": len(passages),
        "examples": len(examples),
        "arms": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        plain = random_bert(work / "plain", passages)
        seconds, done = timed(
            lambda: pretrain(
                RetroMAESettings(
                    model=str(plain),
                    out=str(work / "retromae"),
                    max_length=64,
                    tokens=2048,
                    steps=options.pretrain_steps,
                    learning_rate=1e-3,
                    save_every=10_000,
                    log_every=25,
                ),
                passages,
            )
        )
        losses = [line for line in done.log if "loss" in line]
        result["pretraining"] = {"seconds": round(seconds), "log": losses}
        print("RetroMAE loss", losses[0]["loss"], "→", losses[-1]["loss"], flush=True)
        for arm, start in (("from random", plain), ("after RetroMAE", done.folder)):
            runs = []
            for seed in range(options.seeds):
                out = work / f"{start.name}-{seed}"
                settings = TrainSettings(
                    model=str(start),
                    out=str(out),
                    modes=("dense",),
                    steps=options.steps,
                    learning_rate=3e-4,
                    seed=seed,
                    save_every=10_000,
                    batch=BatchSettings(
                        tokens=4096, max_queries=32, group_size=2, passage_max_length=64
                    ),
                )
                trained = train(settings, examples)
                encoder = M3Encoder.from_pretrained(
                    trained.folder,
                    device="cpu",
                    heads=HeadSpec(sparse=False, colbert=False),
                    document_max_length=64,
                    truncation="warn",
                    keep=None,
                )
                found = evaluate(encoder, collection, modes=["dense"])
                runs.append(
                    {
                        "seed": seed,
                        "loss": trained.log[-2].get("loss"),
                        "nDCG@10": found.mean("dense"),
                        "R@100": found.mean("dense", "R@100"),
                    }
                )
                print(arm, runs[-1], flush=True)
            result["arms"][arm] = {
                "runs": runs,
                "median nDCG@10": statistics.median(run["nDCG@10"] for run in runs),
                "median R@100": statistics.median(run["R@100"] for run in runs),
            }
    write_result(RESULTS / "retromae.json", result)


def random_bert(folder: Path, texts: list[str]) -> Path:
    """Write a random BERT with a vocabulary learned from the texts."""
    folder.mkdir()
    learner = BertWordPieceTokenizer(lowercase=True)
    learner.train_from_iterator(texts, vocab_size=PIECES, show_progress=False)
    learner.save_model(str(folder))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=PIECES,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
