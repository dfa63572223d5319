"""What reading texts needs to know of a tokenizer, wherever the model itself runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m3_retrievers.encoder.files import is_there, read_json
from m3_retrievers.encoder.pieces import Frame, find_frame
from m3_retrievers.errors import CheckpointError

# How XLM-R's pieces spell the beginning of a word; alone it stands for white space.
_WORD_MARK = "▁"
_DROPPED = ("cls_token_id", "eos_token_id", "sep_token_id", "pad_token_id", "unk_token_id")


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """A tokenizer and its constants; the fields are those of ``checkpoint.Checkpoint``."""

    tokenizer: Any
    frame: Frame
    max_length: int
    dropped_ids: tuple[int, ...]
    unknown_id: int | None
    blank_ids: tuple[int, ...]
    vocabulary_size: int


def read_vocabulary(tokenizer: Any, *, max_length: int, vocabulary_size: int) -> Vocabulary:
    """Return the constants of a loaded tokenizer.

    max_length: tokens a sequence may have, frame included. vocabulary_size: of the model.
    """
    ids = {getattr(tokenizer, name, None) for name in _DROPPED}
    mark = tokenizer.backend_tokenizer.token_to_id(_WORD_MARK)
    return Vocabulary(
        tokenizer=tokenizer,
        frame=find_frame(tokenizer),
        max_length=max_length,
        dropped_ids=tuple(sorted(one for one in ids if one is not None)),
        unknown_id=getattr(tokenizer, "unk_token_id", None),
        blank_ids=() if mark is None else (mark,),
        vocabulary_size=vocabulary_size,
    )


def load_vocabulary(folder: Path, *, max_length: int) -> Vocabulary:
    """Return the vocabulary of a folder that may hold a tokenizer alone.

    Its size is the model's where the folder has a config.json, which may be above the
    tokenizer's. Raises CheckpointError without a tokenizer.
    """
    from m3_retrievers.encoder.pretrained import load_tokenizer  # transformers: 1 s to import

    tokenizer = load_tokenizer(folder)
    size = int(tokenizer.backend_tokenizer.get_vocab_size())
    if is_there(folder / "config.json"):
        stated = read_json(folder / "config.json").get("vocab_size", size)
        if type(stated) is not int or stated < size:
            raise CheckpointError(
                f"{folder}/config.json expects vocab_size of at least {size}, the tokenizer's, "
                f"got {stated!r:.40}. Use the tokenizer of this model."
            )
        size = stated
    return read_vocabulary(tokenizer, max_length=max_length, vocabulary_size=size)
