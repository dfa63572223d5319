"""Where SPLADE's training starts: a masked-language model, and what weighs its queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from m3_retrievers.encoder.source import find_folder
from m3_retrievers.encoder.splade_model import SpladeModel, load_splade
from m3_retrievers.encoder.splade_source import SpladeSource, read_layout
from m3_retrievers.errors import InputError
from m3_retrievers.training.settings import TrainSettings
from m3_retrievers.training.splade.model import SpladeModule
from m3_retrievers.training.splade.sparsity import idf_scale, idf_table
from m3_retrievers.training.start import add_lora, set_dropout


def start_splade(settings: TrainSettings, texts: Sequence[str]) -> SpladeModule:
    """Return the module to train, on the CPU, in float32.

    texts: passages of the training data, whose inverse document frequencies are taken where they
    are asked for. Raises CheckpointError for a model that is not whole or has no decoder,
    InputError where queries and documents have models of their own.
    """
    folder = find_folder(settings.model, None)
    queries, documents = read_layout(folder)
    if documents.folder is None or queries.folder not in (None, documents.folder):
        raise InputError(
            f"{settings.model!r} has a model for queries and another for documents, expected one "
            "for both, or queries by a table. Train each by itself."
        )
    model = _load(documents)
    torch.manual_seed(settings.seed)
    assert model.body is not None
    assert model.decoder is not None
    set_dropout(model.body, settings.dropout)
    idf = None
    if settings.splade.idf_flops or settings.splade.queries == "idf":
        idf = idf_table(texts, model.tokenizer, vocabulary_size=model.vocabulary_size)
    if settings.lora is not None:
        for parameter in (*model.body.parameters(), *model.decoder.parameters()):
            parameter.requires_grad_(False)
        model = replace(model, body=add_lora(model.body, settings.lora))
    return SpladeModule(
        model,
        settings,
        table=_table(settings, queries, model, idf),
        flops_scale=idf_scale(idf) if settings.splade.idf_flops and idf is not None else None,
    )


def _load(source: SpladeSource) -> SpladeModel:
    """Return one side; where the files do not say, it pools by the maximum, with one logarithm."""
    return load_splade(
        source,
        pooling=source.pooling or "max",
        activation=source.activation or "relu",
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


def _table(
    settings: TrainSettings, queries: SpladeSource, model: SpladeModel, idf: Tensor | None
) -> Tensor | None:
    """Return (v,) what weighs the tokens of queries; None where the model does."""
    if settings.splade.queries is None:
        return _load(queries).table if queries.folder is None else None
    tables = {"model": None, "idf": idf, "ones": torch.ones(model.vocabulary_size)}
    return tables[settings.splade.queries]
