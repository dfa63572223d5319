"""Checkpoints that many tests read: written once a run, never changed by a test."""

from pathlib import Path

import pytest
from hypothesis import settings

from checkpoints import write_tiny_bert, write_tiny_m3

# One profile for every law: a busy machine is no reason to fail, and a failure is found again.
settings.register_profile("laws", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("laws")


@pytest.fixture(scope="session")
def tiny_m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random XLM-RoBERTa with both heads, as BAAI/bge-m3's."""
    return write_tiny_m3(tmp_path_factory.mktemp("models") / "tiny-m3")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random BERT without heads, mean pooling."""
    return write_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")
