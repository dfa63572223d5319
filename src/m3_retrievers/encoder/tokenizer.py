"""A tokenizer read from its file alone: what encoding asks of one, without transformers.

transformers takes a second to import, and of a BERT's or XLM-RoBERTa's ``tokenizer.json`` it keeps
the vocabulary and builds the rest anew. Where the file says just what would be built, it is read as
it is (a test compares both); anything else is left to ``pretrained.load_tokenizer``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from m3_retrievers.encoder.files import converted, is_there, read_json

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")
_BERT = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
XLM_ROBERTA = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "sep_token": "</s>",
    "cls_token": "<s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
# Settings of transformers' that change the tokens, with the value that changes nothing.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "add_prefix_space": (True, None),
    "split_special_tokens": (False, None),
    "add_bos_token": (None,),
    "add_eos_token": (None,),
    "extra_special_tokens": (None, [], {}),
    "additional_special_tokens": (None, []),
    "auto_map": (None,),
}


@dataclass(frozen=True, slots=True, eq=False)
class TextTokenizer:
    """The members of a transformers tokenizer that reading texts needs, under the same names."""

    backend_tokenizer: Any
    cls_token_id: int | None
    eos_token_id: int | None
    sep_token_id: int | None
    pad_token_id: int | None
    unk_token_id: int | None

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        """Return the vocabulary's spelling of each id."""
        return [self.backend_tokenizer.id_to_token(id) for id in ids]


def read_tokenizer(folder: Path) -> TextTokenizer | None:
    """Return a folder's tokenizer; None where transformers would build another from its files.

    Raises CheckpointError for a file that cannot be read.
    """
    files = [folder / name for name in ("tokenizer.json", "tokenizer_config.json")]
    if is_there(folder / "added_tokens.json") or not all(is_there(file) for file in files):
        return None
    config = read_json(files[1])
    if is_there(folder / "special_tokens_map.json"):
        config = read_json(folder / "special_tokens_map.json") | config
    kind = str(config.get("tokenizer_class")).removesuffix("Fast")
    if not all(config.get(name) in known for name, known in _PLAIN.items()):
        return None
    with converted(f"{files[0]} cannot be read", "Copy or download it again."):
        backend = Tokenizer.from_file(str(files[0]))
        backend.no_padding()
        backend.no_truncation()
        if kind == "BertTokenizer":
            return _checked(backend, config, _BERT, _is_bert(backend, config))
        if kind == "XLMRobertaTokenizer":
            return _checked(backend, config, XLM_ROBERTA, _is_xlm_roberta(backend))
    return None


def of_backend(backend: Any, special: Mapping[str, str]) -> TextTokenizer:
    """Return a tokenizer of its parts; special: the spelling of each special token."""
    ids = {f"{name}_id": backend.token_to_id(special[name]) for name in special if name in _NAMES}
    ids.pop("bos_token_id", None)
    return TextTokenizer(**(dict.fromkeys(_IDS) | ids | {"backend_tokenizer": backend}))


_IDS = ("cls_token_id", "eos_token_id", "sep_token_id", "pad_token_id", "unk_token_id")


def _checked(
    backend: Any, config: Mapping[str, Any], defaults: Mapping[str, str], plain: bool
) -> TextTokenizer | None:
    """Return the tokenizer where each special token is there, with the flags it should have."""
    given = {name: config.get(name, default) for name, default in defaults.items()}
    special = {
        name: one.get("content") if isinstance(one, dict) else one for name, one in given.items()
    }
    held = {one.content: one for one in backend.get_added_tokens_decoder().values()}
    stated = [one for one in given.values() if isinstance(one, dict)]
    stated += config.get("added_tokens_decoder", {}).values()
    right = all(_agrees(held.get(one.get("content")), one) for one in stated)
    if not plain or not right or special != dict(defaults) or set(held) != set(special.values()):
        return None
    return of_backend(backend, special)


def _agrees(held: AddedToken | None, stated: Mapping[str, Any]) -> bool:
    return held is not None and all(
        stated.get(flag, getattr(held, flag)) == getattr(held, flag) for flag in _FLAGS
    )


def _is_bert(backend: Any, config: Mapping[str, Any]) -> bool:
    normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    return (
        _state(backend.normalizer) == _state(normalizer)
        and _state(backend.pre_tokenizer) == _state(pre_tokenizers.BertPreTokenizer())
        and _framed(backend, "[CLS]", "[SEP]")
        and type(backend.model).__name__ == model["type"]
        and backend.model.unk_token == model["unk_token"]
        and backend.model.continuing_subword_prefix == model["continuing_subword_prefix"]
        and backend.model.max_input_chars_per_word == 100
    )


def _is_xlm_roberta(backend: Any) -> bool:
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    return (
        _state(backend.normalizer).get("type") in ("Precompiled", None)
        and _state(backend.pre_tokenizer) == _state(splitter)
        and _framed(backend, "<s>", "</s>")
        and type(backend.model).__name__ == "Unigram"
        and [backend.token_to_id(one) for one in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]
    )


def _framed(backend: Any, first: str, last: str) -> bool:
    """Whether a text is framed by these two tokens and nothing else."""
    state = _state(backend.post_processor)
    frame = [
        {"SpecialToken": {"id": first, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": last, "type_id": 0}},
    ]
    tokens = state.get("special_tokens", {})
    right = all(
        tokens.get(one, {}).get("ids") == [backend.token_to_id(one)] for one in (first, last)
    )
    return state.get("single") == frame and right


def _state(part: Any) -> dict[str, Any]:
    found: dict[str, Any] = {} if part is None else json.loads(part.__getstate__())
    return found
