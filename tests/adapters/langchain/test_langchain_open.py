"""Stores and retrievers over a durable file: every change is there when it is opened again."""

from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index

from m3_retrievers import BM25, M3Encoder
from m3_retrievers.langchain import M3DocumentIndex, M3EnsembleRetriever, M3VectorStore

DOCUMENTS = [
    Document(text, id=text[:9], metadata={"n": at})
    for at, text in enumerate(["The river rose.", "A librarian reads.", "The bridge was closed."])
]


def test_a_store_a_retriever_and_a_document_index_open_one_file(tiny_m3, tmp_path):
    encoder, path = M3Encoder.from_pretrained(tiny_m3), tmp_path / "my.index"
    store = M3VectorStore.open(path, encoder, legs=("dense", "bm25"), tokenizer="english")
    store.add_documents(DOCUMENTS)
    retriever = M3EnsembleRetriever.open(path, encoder, k=2)
    documents = M3DocumentIndex.open(path, encoder, k=2)
    found = [document.id for document in retriever.invoke("river")]
    assert found == [document.id for document in documents.invoke("river")]
    assert retriever.hybrid.index.weighting.terms("pages") == BM25(tokenizer="english").terms(
        "pages"
    )
    store.delete([found[0]])
    assert found[0] not in [document.id for document in retriever.invoke("river")]
    for one in (store, retriever, documents):
        one.hybrid.index.close()


def test_an_index_run_that_stopped_half_way_ends_with_the_documents(tiny_m3, tmp_path, monkeypatch):
    """The store keeps a batch, the record manager was not told: as after a kill between them."""
    encoder, path = M3Encoder.from_pretrained(tiny_m3), tmp_path / "my.index"
    records = InMemoryRecordManager(namespace="notes")

    def run():
        store = M3VectorStore.open(path, encoder)
        try:
            index(DOCUMENTS, records, store, cleanup="full", key_encoder="sha256", batch_size=1)
        finally:
            store.hybrid.index.close()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(records, "update", killed)
        try:
            run()
        except KeyboardInterrupt:
            stopped = True
    assert stopped
    run()
    store = M3VectorStore.open(path, encoder)
    kept = store.hybrid.get(store.hybrid.index.ids)
    assert sorted(one.text for one in kept) == sorted(one.page_content for one in DOCUMENTS)
    store.hybrid.index.close()
