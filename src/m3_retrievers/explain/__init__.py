"""Why a hit matched, and why it outranks another: the table of contents.

Names load on first use. ``explain.html`` draws hits and explanations for notebooks.
"""

from typing import TYPE_CHECKING

from m3_retrievers.lazy import contents

if TYPE_CHECKING:
    from m3_retrievers.explain.comparison import Comparison as Comparison
    from m3_retrievers.explain.comparison import compare as compare
    from m3_retrievers.explain.explaining import explain as explain
    from m3_retrievers.explain.explanation import Alignment as Alignment
    from m3_retrievers.explain.explanation import Explanation as Explanation
    from m3_retrievers.explain.explanation import ReadText as ReadText
    from m3_retrievers.explain.explanation import TermShare as TermShare

_HOMES = {
    "Alignment": "explanation",
    "Comparison": "comparison",
    "Explanation": "explanation",
    "ReadText": "explanation",
    "TermShare": "explanation",
    "compare": "comparison",
    "explain": "explaining",
}

__all__ = [
    "Alignment",
    "Comparison",
    "Explanation",
    "ReadText",
    "TermShare",
    "compare",
    "explain",
]

__getattr__, __dir__ = contents(__name__, _HOMES)
