"""Fields and refusals of the pydantic classes that both frameworks build on."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, SkipValidation, ValidationError

from m3_retrievers.checks import check_k
from m3_retrievers.encoder.base import Encoder
from m3_retrievers.encoder.choose import as_splade
from m3_retrievers.errors import InputError, M3Error
from m3_retrievers.frameworks.inputs import as_model
from m3_retrievers.frameworks.scores import ScoreStyle, check_style
from m3_retrievers.habits import check_options
from m3_retrievers.types.plan import HybridWeights, as_weights


def _at_least_one(name: str) -> BeforeValidator:
    def checked(value: Any) -> Any:
        if value is not None:
            check_k(value, name=name)
        return value

    return BeforeValidator(checked)


# An encoder, embeddings of one, or a model's name; somebody's own need not inherit from ours.
EncoderField = Annotated[Encoder, SkipValidation, BeforeValidator(as_model)]
SpladeField = Annotated[Encoder, SkipValidation, BeforeValidator(as_splade)]
K = Annotated[int, _at_least_one("k")]
RerankDepth = Annotated[int, _at_least_one("rerank_depth")]
TopN = Annotated[int | None, _at_least_one("top_n")]
Scores = Annotated[ScoreStyle, BeforeValidator(check_style)]
# HybridWeights, or a mapping such as LlamaIndex's to_dict makes of them.
Weights = Annotated[HybridWeights | None, SkipValidation, BeforeValidator(as_weights)]


class Checked:
    """Mixed into a pydantic class: it refuses as the rest of the package does.

    An option that is not known is named, with the one that was probably meant; what a field
    refuses is an InputError that says what was expected, got, and what to do. What is set on an
    object is checked as what it was made with (``validate_assignment`` in the class's config).
    """

    model_fields: ClassVar[dict[str, Any]]

    def __init__(self, **options: Any) -> None:
        owner = type(self).__name__
        check_options(options, known=type(self)._names(), owner=owner)
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise _as_input_error(error, owner) from None

    def __setattr__(self, name: str, value: Any) -> None:
        owner = type(self).__name__
        if not hasattr(type(self), name) and not name.startswith("_"):
            check_options([name], known=type(self)._names(), owner=owner)
        try:
            super().__setattr__(name, value)
        except ValidationError as error:
            raise _as_input_error(error, owner) from None

    @classmethod
    def _names(cls) -> list[str]:
        return [
            name for key, field in cls.model_fields.items() for name in {key, field.alias or key}
        ]


def _as_input_error(error: ValidationError, owner: str) -> M3Error:
    first = error.errors()[0]
    own = first.get("ctx", {}).get("error")
    if isinstance(own, M3Error):
        return own
    name = ".".join(str(part) for part in first["loc"]) or owner
    if first["type"] == "missing":
        return InputError(f"{owner} expects {name}=, got none. Give it by this name.")
    return InputError(f"{owner} got {first['input']!r:.80} for {name}. {first['msg']}.")
