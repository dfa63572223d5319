"""The benchmarks' scripts still find what they import; they themselves are run by hand."""

import importlib.util
import sys
from pathlib import Path

import pytest
from langchain_core.documents import Document

from m3_retrievers import M3Encoder
from m3_retrievers.encoder.recent import Keep
from sentences import SENTENCES
from splade_checkpoints import write_tiny_splade

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
    shared = (
        "common",
        "full_size",
        "on_device",
        "homes_data",
        "processor_limits",
        "taking_turns",
    )
    assert callable(getattr(module, "main", None)) or path.stem in shared


STORES = {
    "langchain-qdrant": "langchain_qdrant",
    "langchain-milvus": "langchain_milvus",
    "llama-index-vector-stores-qdrant": "llama_index.vector_stores.qdrant",
    # holds pymilvus below 3, and so is not part of the development environment
    "llama-index-vector-stores-milvus": "llama_index.vector_stores.milvus",
}


# langchain-milvus 0.4 warns about its own default ranker, qdrant-client that a local collection
# needs no payload index
@pytest.mark.filterwarnings("ignore:The 'ranker_type' and 'ranker_params':DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
@pytest.mark.parametrize("store", STORES)
def test_a_foreign_store_with_our_reranker_runs_the_model_once_a_text(
    store, module_of, tiny_m3, tmp_path
):
    pytest.importorskip(STORES[store], reason=f"needs {store}")
    module = module_of(FOLDER / "forward_passes.py")
    texts, question = list(SENTENCES[:6]), "the river and the librarian"
    found = {}
    for keep in (None, Keep()):
        encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", keep=keep)
        (tmp_path / str(keep)).mkdir()
        found[keep] = module.counted(
            store, encoder, texts, [question, question], tmp_path / str(keep)
        )
    # one more where the store asks for the width of a vector with a text of its own
    own = 1 if store == "langchain-qdrant" else 0
    assert found[None]["filling"] == {"query": 0, "document": 12 + own}
    assert found[Keep()]["filling"] == {"query": 0, "document": 6 + own}
    once = {"query": 1, "document": module.CANDIDATES, "hits": module.CANDIDATES}
    assert found[None]["questions"] == [once | {"query": 3}] * 2
    # ColBERT vectors of documents come with the reranking, the first time
    assert found[Keep()]["questions"] == [once, once | {"query": 0, "document": 0}]


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_one_rag_chain_gives_the_same_table_with_each_encoder(module_of, tiny_m3, tmp_path):
    module = module_of(FOLDER / "rag_table.py")
    documents = [
        Document(text, metadata={"name": str(at)}) for at, text in enumerate(SENTENCES[:8])
    ]
    splade = write_tiny_splade(tmp_path / "splade")
    found = module.compared(str(tiny_m3), splade, documents, [SENTENCES[1], "the old river"])
    local, served, combined = found.values()
    for one in found.values():
        assert [len(row["hits"]) for row in one["rows"]] == [module.K] * 2
        assert all(row["answer"] in " ".join(SENTENCES) for row in one["rows"])
        assert module.table("name", one).count("\n") == 5
    assert [row["hits"] for row in local["rows"]] == [row["hits"] for row in served["rows"]]
    for ours, theirs in zip(local["rows"], served["rows"], strict=True):
        assert ours["scores"] == pytest.approx(theirs["scores"], abs=1e-5)
        assert (ours["passes"], theirs["passes"]) == (1, 1)
    assert [row["passes"] for row in combined["rows"]] == [2, 2]  # M3's and SPLADE's
    assert combined["outputs"] == ("dense", "sparse", "colbert")
