"""The benchmarks' scripts still find what they import; they themselves are run by hand."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent / "benchmarks"
SCRIPTS = sorted([*FOLDER.glob("*.py"), *FOLDER.glob("m3_mini/*.py")])
PEERS = ("FlagEmbedding", "llama_index.indices")


@pytest.fixture
def module_of(monkeypatch):
    """Return what loads a script; it and the neighbours it imports are gone afterwards."""

    def load(path):
        monkeypatch.setattr(sys, "path", [str(path.parent), str(FOLDER), *sys.path])
        spec = importlib.util.spec_from_file_location(f"benchmark_{path.stem}", path)
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    before = set(sys.modules)
    yield load
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_script_finds_what_it_imports(path, module_of):
    try:
        module = module_of(path)
    except ModuleNotFoundError as error:
        if not error.name.startswith(PEERS):
            raise
        pytest.skip(f"needs {error.name}, which users never need")
    shared = ("common", "full_size", "on_device", "homes_data", "taking_turns")
    assert callable(getattr(module, "main", None)) or path.stem in shared
