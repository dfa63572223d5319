"""Stores and retrievers over a durable file: every change is there when it is opened again."""

from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.schema import TextNode

from m3_retrievers import M3Encoder
from m3_retrievers.llama_index import M3EnsembleRetriever, M3VectorStore

NODES = [
    TextNode(text=text, id_=str(at))
    for at, text in enumerate(["The river rose.", "A librarian reads.", "The bridge was closed."])
]


def test_a_store_and_a_retriever_open_one_file_and_persist_writes_nothing(tiny_m3, tmp_path):
    encoder, path = M3Encoder.from_pretrained(tiny_m3), tmp_path / "my.index"
    store = M3VectorStore.open(path, encoder)
    context = StorageContext.from_defaults(vector_store=store)
    VectorStoreIndex(NODES, storage_context=context, embed_model=store.embed_model)
    store.persist(str(tmp_path / "elsewhere"))
    assert not (tmp_path / "elsewhere").exists()
    retriever = M3EnsembleRetriever.open(path, encoder, similarity_top_k=3)
    assert {found.node.node_id for found in retriever.retrieve("river")} == {"0", "1", "2"}
    store.delete_nodes(["0"])
    assert {found.node.node_id for found in retriever.retrieve("river")} == {"1", "2"}
    for one in (store, retriever):
        one.hybrid.index.close()
