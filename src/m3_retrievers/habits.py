"""What people type from habit in another library, and what to type here instead.

An option, a name or a call that is not known is an error in any case; here it gets to say what
was probably meant. Nothing here runs before something has gone wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, iscoroutinefunction, signature
from types import FunctionType
from typing import Any, NoReturn, TypeVar

from m3_retrievers.errors import CallError, UnknownImportError, UnknownNameError

Class = TypeVar("Class", bound=type)

# Options by the names that other libraries give them, where one of ours is meant.
_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "top_k": ("k", "top_n"),
    "topk": ("k", "top_n"),
    "top_n": ("k",),
    "limit": ("k",),
    "n_results": ("k", "top_n"),
    "num_results": ("k", "top_n"),
    "similarity_top_k": ("k", "top_n"),
    "k": ("top_n", "search_kwargs"),
    "search_kwargs": ("k",),
    "filter": ("filters", "search_kwargs"),
    "filters": ("filter",),
    "where": ("filter", "filters"),
    "metadata_filters": ("filters", "filter"),
    "embedding": ("encoder", "hybrid"),
    "embeddings": ("embedding", "encoder", "hybrid"),
    "embed_model": ("encoder", "hybrid"),
    "embedding_function": ("encoder", "hybrid"),
    "model": ("encoder",),
    "model_name": ("encoder",),
    "model_name_or_path": ("name_or_path", "encoder"),
    "embeddings_model": ("encoder",),
    "encoder": ("hybrid",),
    "c": ("fusion", "k"),
    "sparse": ("lexical",),
    "bm25": ("lexical", "sparse"),
    "lexical": ("sparse",),
    "multi_vector": ("colbert",),
    "multivector": ("colbert",),
    "mode": ("fusion",),
    "retriever_weights": ("weights",),
    "weights_for_different_modes": ("weights",),
    "node_postprocessors": ("reranker",),
    "base_compressor": ("reranker",),
    "retriever": ("retrievers",),
    "base_retriever": ("retrievers",),
    "bm25_params": ("bm25",),
    "bm25_variant": ("bm25",),
    "preprocess_func": ("tokenizer",),
    "language": ("tokenizer",),
    "stemmer": ("tokenizer",),
    "metadata": ("metadatas",),
    "metadatas": ("metadata",),
    "show_progress_bar": ("show_progress",),
    "dtype": ("precision",),
    "torch_dtype": ("precision", "dtype"),
    "use_fp16": ("precision", "dtype"),
    "max_length": ("document_max_length",),
    "passage_max_length": ("document_max_length",),
    "return_dense": ("outputs",),
    "return_sparse": ("outputs",),
    "return_colbert_vecs": ("outputs",),
}

_OF_THE_MODEL = "It belongs to the model: M3Encoder.from_pretrained(…, device=…, precision=…)."
_IN_MEMORY = "What is in memory is kept by save(folder) and comes back by load(folder, encoder)."
_DOCUMENTS = "Documents go into from_documents, nodes into from_nodes."

# What to do about options that are called by no name here.
_ADVICE: Mapping[str, str] = {
    "ids": "A document brings its id: Document(…, id=…); from_texts takes ids=.",
    "filter": "Give it where you ask: invoke(query, filter=…), or .bind(filter=…) for a chain.",
    "score_threshold": "Use similarity_search_with_relevance_scores(…, score_threshold=…), or "
    "as_retriever(search_type='similarity_score_threshold', search_kwargs=…).",
    "num_queries": "One question is one query here; QueryFusionRetriever writes several.",
    "encoder": "BM25 reads no model; M3SparseRetriever and M3EnsembleRetriever do.",
    **dict.fromkeys(("documents", "docs", "nodes", "texts"), _DOCUMENTS),
    **dict.fromkeys(
        ("persist_directory", "persist_dir", "persist_path", "path", "collection_name"), _IN_MEMORY
    ),
    **dict.fromkeys(
        (
            "device",
            "dtype",
            "use_fp16",
            "torch_dtype",
            "max_length",
            "model_kwargs",
            "encode_kwargs",
            "query_instruction",
        ),
        _OF_THE_MODEL,
    ),
    "normalize_embeddings": "Dense vectors always have length 1.",
    "trust_remote_code": "A checkpoint's own code is never run.",
    "cache_folder": "Set HF_HOME for another place, or pass the model's folder.",
}


def check_options(given: Iterable[str], *, known: Iterable[str], owner: str) -> None:
    """Raise CallError for an option that is not known: ignored, it would mislead.

    >>> check_options(["top_k"], known=["encoder", "k"], owner="M3EnsembleRetriever")
    Traceback (most recent call last):
    m3_retrievers.errors.CallError: M3EnsembleRetriever got the option 'top_k', which it does \
not know. Did you mean k=? It takes encoder, k.
    """
    names = sorted(known)
    for option in given:
        if option not in names:
            raise CallError(
                f"{owner} got the option {option!r}, which it does not know.{_meant(option, names)}"
                f" It takes {', '.join(names) or 'none'}."
            )


def check_others(
    others: Iterable[str], method: Callable[..., object], *, also: Iterable[str] = ()
) -> None:
    """Refuse what a method's ``**options`` let through; see ``check_options``."""
    check_options(others, known=(*_named(method), *also), owner=method.__qualname__)


def guided(**names: str) -> Callable[[Class], Class]:
    """Return a class decorator: a wrong call of a public method, or a wrong name, says what to do.

    A call with an argument that the method does not take, or without one it needs, is a
    CallError. names: what to write instead of a name that people try on the class's objects;
    it stays an AttributeError, and out of ``dir``.

    >>> @guided(append="add(text)")
    ... class Index:
    ...     def add(self, text, *, k=4): pass
    >>> Index().append
    Traceback (most recent call last):
    m3_retrievers.errors.UnknownNameError: Index has no 'append'. Write add(text).
    >>> Index().add("a", top_k=3)
    Traceback (most recent call last):
    m3_retrievers.errors.CallError: Index.add got the option 'top_k', which it does not know. \
Did you mean k=? It takes k, text.
    """

    def decorate(cls: Class) -> Class:
        for name, member in list(vars(cls).items()):
            function = member.__func__ if isinstance(member, classmethod) else member
            if isinstance(function, FunctionType) and (name == "__init__" or name[0] != "_"):
                told = _telling(function)
                setattr(cls, name, classmethod(told) if function is not member else told)
        if names:
            _tell_names(cls, names)
        return cls

    return decorate


def guided_module(
    module: str, lazy: Callable[[str], Any], names: Mapping[str, str]
) -> Callable[[str], Any]:
    """Return a module's ``__getattr__``: of names that are elsewhere it says where.

    lazy: the module's own. names: what to write instead. Such a name is an ImportError, which
    is what ``from module import name`` lets through with its text.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name in names:
            raise UnknownImportError(f"{module} has no {name!r}. Write {names[name]}.")
        return lazy(name)

    return __getattr__


def _meant(option: str, names: Iterable[str]) -> str:
    """Return what an option was meant to be, as a sentence with a space before it, or nothing."""
    near = [name for name in _SYNONYMS.get(option, ()) if name in names]
    if near:
        return f" Did you mean {near[0]}=?"
    if option in _ADVICE:
        return f" {_ADVICE[option]}"
    close = get_close_matches(option, list(names), n=1, cutoff=0.75)
    return f" Did you mean {close[0]}=?" if close else ""


def _telling(function: Any) -> Any:
    """Return a function that explains a call which does not fit its signature.

    Such a TypeError arises at the call itself: it has no frame of the function in it.
    """
    if iscoroutinefunction(function):

        @wraps(function)
        async def acalled(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            except TypeError as error:
                if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                    _refuse(function, args, kwargs, error)
                raise

        return acalled

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                _refuse(function, args, kwargs, error)
            raise

    return called


def _refuse(
    function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], error: TypeError
) -> NoReturn:
    """Raise CallError for what is wrong with the arguments; args: with self or cls."""
    cls = args[0] if isinstance(args[0], type) else type(args[0])
    owner = cls.__name__ + ("" if function.__name__ == "__init__" else f".{function.__name__}")
    parameters = list(signature(function).parameters.values())[1:]
    by_position = [p.name for p in parameters if p.kind in _BY_POSITION]
    known = [p.name for p in parameters if p.kind not in _OPEN]
    given = {*by_position[: len(args) - 1], *kwargs}
    missing = [
        p.name
        for p in parameters
        if p.kind not in _OPEN and p.default is Parameter.empty and p.name not in given
    ]
    if len(known) == len(parameters):
        check_options(kwargs, known=known, owner=owner)
    if len(args) - 1 > len(by_position):
        rest = [f"{name}=…" for name in known if name not in by_position]
        raise CallError(
            f"{owner} takes {', '.join(by_position) or 'nothing'} by position, got "
            f"{len(args) - 1} arguments. Give the others by name: {', '.join(rest) or 'none'}."
        ) from None
    if missing:
        meant = [_meant(option, missing) for option in kwargs if option not in known]
        raise CallError(
            f"{owner} expects {', '.join(f'{name}=' for name in missing)}, got none."
            f"{next((m for m in meant if m), '')} It takes {', '.join(known)}."
        ) from None
    raise CallError(f"{owner}: {error}.") from None


_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
_OPEN = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def _named(method: Callable[..., object]) -> list[str]:
    return [p.name for p in signature(method).parameters.values() if p.kind not in _OPEN]


def _tell_names(cls: Any, names: Mapping[str, str]) -> None:
    """Answer names of other libraries, read or set on an object, with what to write instead."""
    inherited, assign = getattr(cls, "__getattr__", None), cls.__setattr__

    def told(self: Any, name: str) -> UnknownNameError:
        return UnknownNameError(f"{type(self).__name__} has no {name!r}. Write {names[name]}.")

    def __getattr__(self: Any, name: str) -> Any:  # noqa: N807
        if name in names:
            raise told(self, name)
        return (inherited or object.__getattribute__)(self, name)

    def __setattr__(self: Any, name: str, value: Any) -> None:  # noqa: N807
        if name in names and not hasattr(type(self), name):
            raise told(self, name)
        assign(self, name, value)

    cls.__getattr__ = __getattr__
    cls.__setattr__ = __setattr__
