"""What many tests read and none changes: tiny checkpoints, and a model, made once a process."""

import gc
from pathlib import Path

import pytest
from hypothesis import settings

from checkpoints import write_tiny_bert, write_tiny_m3
from m3_retrievers import M3Encoder

# One profile for every law: a busy machine is no reason to fail, and a failure is found again.
settings.register_profile("laws", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("laws")


class Selection:
    """What is not even imported, for half of a short run's time goes into imports.

    That is a module of the package without a doctest, and, where slow tests are left out, a file
    that is slow as a whole. The notebooks begin first, for each takes longer than any other test.
    """

    def pytest_ignore_collect(self, collection_path: Path, config: pytest.Config) -> bool | None:
        if collection_path.suffix != ".py":
            return None
        text = collection_path.read_text("utf-8")
        if collection_path.is_relative_to(config.rootpath / "src"):
            return True if ">>>" not in text else None
        quick = config.option.markexpr == "not slow"
        return True if quick and "\npytestmark = pytest.mark.slow" in text else None

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: item.path.stem != "test_notebooks")

    def pytest_collection_finish(self) -> None:
        # modules and thousands of tests stay to the end: nothing there for the collector to find
        gc.freeze()
        gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()
    config.pluginmanager.register(Selection())


@pytest.fixture(scope="session")
def tiny_m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random XLM-RoBERTa with both heads, as BAAI/bge-m3's."""
    return write_tiny_m3(tmp_path_factory.mktemp("models") / "tiny-m3")


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random BERT without heads, mean pooling."""
    return write_tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="session")
def other_m3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random BERT with both heads, which reads 256 tokens at once."""
    return write_tiny_bert(tmp_path_factory.mktemp("models") / "other-m3", heads=True)


@pytest.fixture(scope="session")
def encoder(tiny_m3: Path) -> M3Encoder:
    """One tiny model with all three outputs; a test that changes its model loads another.

    It keeps nothing: where a test compares two computations, both are made.
    """
    return M3Encoder.from_pretrained(tiny_m3, device="cpu", keep=None)
