"""How well a model retrieves, mode by mode: the table of contents."""

from typing import TYPE_CHECKING

from m3_retrievers.lazy import contents

if TYPE_CHECKING:
    from m3_retrievers.evaluation.benchmark import evaluate as evaluate
    from m3_retrievers.evaluation.benchmark import represent as represent
    from m3_retrievers.evaluation.datasets import Collection as Collection
    from m3_retrievers.evaluation.datasets import read_collection as read_collection
    from m3_retrievers.evaluation.metrics import interval as interval
    from m3_retrievers.evaluation.report import Evaluation as Evaluation
    from m3_retrievers.evaluation.significance import Comparison as Comparison
    from m3_retrievers.evaluation.significance import compare as compare
    from m3_retrievers.evaluation.tuning import Tuned as Tuned
    from m3_retrievers.evaluation.tuning import tune_weights as tune_weights

_HOMES = {
    "Collection": "datasets",
    "Comparison": "significance",
    "Evaluation": "report",
    "Tuned": "tuning",
    "compare": "significance",
    "evaluate": "benchmark",
    "interval": "metrics",
    "read_collection": "datasets",
    "represent": "benchmark",
    "tune_weights": "tuning",
}

__all__ = [
    "Collection",
    "Comparison",
    "Evaluation",
    "Tuned",
    "compare",
    "evaluate",
    "interval",
    "read_collection",
    "represent",
    "tune_weights",
]

__getattr__, __dir__ = contents(__name__, _HOMES)
