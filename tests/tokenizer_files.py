"""Tokenizers for the tests' checkpoints: vocabularies by counting, files as the hub has them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)

from sentences import SENTENCES

# A SentencePiece character map of 16 rules in place of XLM-R's thousands, compiled by
# sentencepiece 0.2.3 (normalization_rule_tsv): ligatures ﬁ ﬂ, full-width ！ ？ ， ： Ａ Ｂ Ｍ ３,
# ㎏, ½, combining é and ü, the no-break and ideographic spaces, tab and line ends. Texts thus
# change length under normalisation, which character spans have to survive.
_CHARACTER_MAP = Path(__file__).parent / "fixtures" / "charsmap.bin"

_XLM_ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_xlm_roberta_tokenizer(
    folder: Path,
    *,
    texts: Iterable[str] = SENTENCES,
    vocabulary_size: int | None = None,
) -> int:
    """Write a Unigram tokenizer with XLM-R's ids and pre-tokenisation; returns its size.

    With a ``vocabulary_size``, pieces that occur in no text fill it up.
    """
    charsmap = normalizers.Precompiled(_CHARACTER_MAP.read_bytes())
    limit = None if vocabulary_size is None else vocabulary_size - len(_XLM_ROBERTA_SPECIALS) - 1
    pieces = _unigram_pieces((charsmap.normalize_str(text) for text in texts), limit)
    while limit is not None and len(pieces) < limit:
        pieces.append((f"▁\ue000{len(pieces)}", -30.0))
    vocabulary = [(token, 0.0) for token in _XLM_ROBERTA_SPECIALS] + pieces + [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = charsmap
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"],
        pair=["<s>", "$A", "</s>", "</s>", "$B", "</s>"],
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in _XLM_ROBERTA_SPECIALS])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    mask = {"content": "<mask>", "lstrip": True, "normalized": False, "rstrip": False}
    config = {**names, "mask_token": "<mask>", "model_max_length": 8192}
    decoder = _added_tokens(tokenizer, [*_XLM_ROBERTA_SPECIALS, "<mask>"], lstrip="<mask>")
    config |= {"tokenizer_class": "XLMRobertaTokenizer", "added_tokens_decoder": decoder}
    _write(folder / "tokenizer_config.json", config)
    _write(
        folder / "special_tokens_map.json", {**names, "mask_token": mask | {"single_word": False}}
    )
    return tokenizer.get_vocab_size()


def write_word_piece(folder: Path) -> int:
    """Write a lower-casing WordPiece tokenizer with BERT's specials; returns its size."""
    normalizer = normalizers.BertNormalizer(lowercase=True)
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for sentence in SENTENCES:
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(sentence)):
            for start, piece in _substrings(word):
                counts[piece if start == 0 else f"##{piece}"] += 1
    kept = [piece for piece in sorted(counts) if counts[piece] > 1 or len(piece.strip("#")) == 1]
    tokens = [*_BERT_SPECIALS, *kept]
    vocabulary = {token: n for n, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["[CLS]", "$A", "[SEP]"],
        pair=["[CLS]", "$A", "[SEP]", "$B:1", "[SEP]:1"],
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in _BERT_SPECIALS])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{token[1:-1].lower()}_token": token for token in _BERT_SPECIALS}
    config = {**names, "model_max_length": 512, "do_lower_case": True}
    config |= {
        "tokenizer_class": "BertTokenizer",
        "added_tokens_decoder": _added_tokens(tokenizer, _BERT_SPECIALS),
    }
    _write(folder / "tokenizer_config.json", config)
    _write(folder / "special_tokens_map.json", names)
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    return tokenizer.get_vocab_size()


def _unigram_pieces(texts: Iterable[str], limit: int | None) -> list[tuple[str, float]]:
    """Return substrings of words with log-probabilities, most frequent first.

    Every character and every short word is kept, other pieces only if they occur twice.
    """
    words = Counter(f"▁{word}" for text in texts for word in text.split())
    counts: Counter[str] = Counter()
    for word, times in words.items():
        for _, piece in _substrings(word):
            counts[piece] += times
    total = counts.total()
    kept = [p for p in counts if counts[p] > 1 or len(p) == 1 or p in words]
    kept.sort(key=lambda piece: (len(piece) > 1, -counts[piece], piece))
    return [(piece, round(math.log(counts[piece] / total), 4)) for piece in kept[:limit]]


def _substrings(word: str, *, longest: int = 12) -> Iterable[tuple[int, str]]:
    for start in range(len(word)):
        for end in range(start + 1, min(len(word), start + longest) + 1):
            yield start, word[start:end]


def _added_tokens(
    tokenizer: Tokenizer, tokens: Iterable[str], *, lstrip: str | None = None
) -> dict[str, Any]:
    flags = {"normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        str(tokenizer.token_to_id(token)): {"content": token, "lstrip": token == lstrip, **flags}
        for token in tokens
    }


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False))
