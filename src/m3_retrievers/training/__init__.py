"""Training M3 by its own recipe: the table of contents."""

from typing import TYPE_CHECKING

from m3_retrievers.lazy import contents

if TYPE_CHECKING:
    from m3_retrievers.training.data import Example as Example
    from m3_retrievers.training.data import read_examples as read_examples
    from m3_retrievers.training.data import write_examples as write_examples
    from m3_retrievers.training.negatives import Mining as Mining
    from m3_retrievers.training.negatives import MiningSettings as MiningSettings
    from m3_retrievers.training.negatives import mine_negatives as mine_negatives
    from m3_retrievers.training.questions import question_pairs as question_pairs
    from m3_retrievers.training.retromae import RetroMAESettings as RetroMAESettings
    from m3_retrievers.training.retromae import pretrain as pretrain
    from m3_retrievers.training.settings import BatchSettings as BatchSettings
    from m3_retrievers.training.settings import LoraSettings as LoraSettings
    from m3_retrievers.training.settings import LossSettings as LossSettings
    from m3_retrievers.training.settings import TrainSettings as TrainSettings
    from m3_retrievers.training.settings import read_settings as read_settings
    from m3_retrievers.training.trainer import Trained as Trained
    from m3_retrievers.training.trainer import train as train

_HOMES = {
    "BatchSettings": "settings",
    "Example": "data",
    "LoraSettings": "settings",
    "LossSettings": "settings",
    "Mining": "negatives",
    "MiningSettings": "negatives",
    "RetroMAESettings": "retromae",
    "TrainSettings": "settings",
    "Trained": "trainer",
    "mine_negatives": "negatives",
    "pretrain": "retromae",
    "question_pairs": "questions",
    "read_examples": "data",
    "read_settings": "settings",
    "train": "trainer",
    "write_examples": "data",
}

__all__ = [
    "BatchSettings",
    "Example",
    "LoraSettings",
    "LossSettings",
    "Mining",
    "MiningSettings",
    "RetroMAESettings",
    "TrainSettings",
    "Trained",
    "mine_negatives",
    "pretrain",
    "question_pairs",
    "read_examples",
    "read_settings",
    "train",
    "write_examples",
]

__getattr__, __dir__ = contents(__name__, _HOMES)
