"""What this package's LlamaIndex components have in common: no option is ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from llama_index.core.schema import BaseComponent
from pydantic import ConfigDict

from m3_retrievers.frameworks.fields import Checked


class StrictComponent(Checked, BaseComponent):
    """A component that refuses an option it does not know: ignored, it would mislead.

    ``from_dict(component.to_dict(), encoder=encoder)`` makes it again; the model itself is not
    written down.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], **kwargs: Any) -> Self:
        """Return the component that ``to_dict`` wrote down; kwargs: what it leaves out."""
        made_of = {
            key: value for key, value in data.items() if key not in cls.model_computed_fields
        }
        return super().from_dict(made_of, **kwargs)
