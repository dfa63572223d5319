"""Pairs for long documents: a passage is asked about, the whole document is the answer.

BGE-M3's paper (arXiv 2402.03216, section 3.1) makes training data for long documents this way:
paragraphs are drawn from long articles, a language model asks a question about each, and the
question with the whole article is a pair. The language model is the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from m3_retrievers.checks import check_k
from m3_retrievers.errors import InputError, TrainingWarning, warn
from m3_retrievers.training.data import Example

PROMPT = """Someone is looking for the text below and has never seen it. Write the one question \
that this text answers best, in the text's own language.

- Ask about what the text is mainly about, not about a side remark.
- Name people, places and things; write no "this", "it" or "the text" that needs the text.
- Answer with the question alone, on one line.

Text:
{passage}"""

_PLACE = "{passage}"

# A place to start and to stop: after a line break, or after a sentence's end. Latin sentences
# end before white space, Chinese and Japanese ones need none.
_BOUNDARY = re.compile(r"\n\s*|(?<=[.!?؟।])\s+|(?<=[。！？])\s*")


def question_pairs(
    documents: Iterable[str],
    ask: Any,
    *,
    prompt: str = PROMPT,
    passage_chars: int = 1500,
    questions: int = 1,
    source: str = "questions",
    seed: int = 0,
) -> Iterator[Example]:
    """Yield examples (a question about a passage, its whole document), without negatives.

    documents: may be a generator; read one at a time. ask: a function from prompt to answer, a
    LangChain runnable (``.invoke``) or a LlamaIndex LLM (``.complete``). An answer is a string, a
    message or completion with its text, or a list of these, one question each. prompt: what is
    asked; ``{passage}`` stands for the passage. passage_chars: the length of a passage at most,
    in characters; it starts and ends with a sentence where there are some. questions: passages
    drawn from a document, at different places, fewer where it is short. seed: decides which.

    Passages without an answer and documents without text are left out, with one TrainingWarning
    that counts them. Raises InputError for what cannot be asked, and for an answer that is no text.

    >>> list(question_pairs(["Bees dance."], lambda prompt: "Who dances?", prompt="{passage}"))
    [Example(query='Who dances?', positives=('Bees dance.',), negatives=(), \
positive_scores=None, negative_scores=None, source='questions')]
    """
    if isinstance(documents, str):
        raise InputError(
            f"documents expects a list of texts, got one string ({documents[:40]!r}): wrap it."
        )
    if _PLACE not in prompt:
        raise InputError(f"prompt expects {_PLACE} where the passage goes, got {prompt!r:.80}.")
    check_k(passage_chars, name="passage_chars")
    check_k(questions, name="questions")
    return _pairs(documents, _asker(ask), prompt, passage_chars, questions, source, seed)


def _pairs(
    documents: Iterable[str],
    ask: Callable[[str], Any],
    prompt: str,
    passage_chars: int,
    questions: int,
    source: str,
    seed: int,
) -> Iterator[Example]:
    empty = asked = 0
    for row, document in enumerate(documents):
        rng = np.random.default_rng([seed, row])
        for passage in _passages(document, passage_chars, questions, rng) or [""]:
            # replace, not format: passages and prompts may hold braces of their own
            answers = _texts(ask(prompt.replace(_PLACE, passage))) if passage else []
            found = [answer.strip() for answer in answers if answer.strip()]
            asked, empty = asked + 1, empty + (not found)
            for question in found:
                yield Example(question, (document,), source=source)
    if empty:
        warn(
            f"{empty} of {asked} passages brought no question and were left out: the document or "
            "the answer was empty. Look at what the language model returns for the prompt.",
            TrainingWarning,
        )


def _asker(ask: Any) -> Callable[[str], Any]:
    """Return the function to call, told by the methods: neither framework is imported."""
    # models first: one of either kind may be callable, with another meaning
    found = getattr(ask, "invoke", None) or getattr(ask, "complete", None) or ask
    if not callable(found) or isinstance(ask, type):
        raise InputError(
            "ask expects a function from prompt to question, a LangChain runnable or a LlamaIndex "
            f"LLM, got {ask!r:.60}."
        )
    answer: Callable[[str], Any] = found
    return answer


def _texts(answer: Any) -> list[str]:
    """Return the answer's strings: its own, its ``.text``, its ``.content``, or its items'."""
    if isinstance(answer, list | tuple):
        return [text for item in answer for text in _texts(item)]
    for value in (answer, getattr(answer, "text", None), getattr(answer, "content", None)):
        if isinstance(value, str):
            return [str(value)]
    raise InputError(
        "ask expects to bring a string, a message or completion with a text, or a list of these, "
        f"got {answer!r:.80}."
    )


def _passages(document: str, size: int, count: int, rng: np.random.Generator) -> list[str]:
    """Return up to ``count`` passages that begin at different places, in the document's order."""
    text = document.strip()
    if len(text) <= size:
        return [text] if text else []
    bounds = _bounds(text, size)
    # the first bound from which the rest fits is the last to begin at
    late = next(at for at, start in enumerate(bounds) if len(text) - start <= size)
    chosen = rng.choice(late + 1, size=min(count, late + 1), replace=False)
    passages = []
    for start in (bounds[at] for at in sorted(chosen.tolist())):
        end = max(bound for bound in bounds if bound <= start + size)
        passages.append(text[start:end].strip())
    return passages


def _bounds(text: str, size: int) -> list[int]:
    """Return where sentences begin, and the text's end, never more than ``size`` apart.

    >>> _bounds("One. Two three four.", size=10)
    [0, 5, 15, 20]
    """
    found = [0]
    for end in (*(match.end() for match in _BOUNDARY.finditer(text)), len(text)):
        while end - found[-1] > size:
            # a sentence that is too long is cut after a word, or wherever it has to be
            reach = found[-1] + size
            space = text.rfind(" ", found[-1] + 1, reach)
            found.append(reach if space < 0 else space + 1)
        if end > found[-1]:
            found.append(end)
    return found
