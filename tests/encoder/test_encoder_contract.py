"""The contract of encoders over each of ours, and over one that inherits nothing."""

import numpy as np
import pytest

from m3_retrievers import CombinedEncoder, HeadSpec, HybridWeights, M3Encoder, SpladeEncoder
from m3_retrievers.encoder.embeddings import EmbeddingsEncoder
from m3_retrievers.errors import InputError, MissingHeadError
from m3_retrievers.testing import EncoderContract
from m3_retrievers.types.representations import Representations
from m3_retrievers.types.tokens import TokenView
from splade_checkpoints import write_tiny_splade

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::m3_retrievers.errors.UnknownTokenWarning"),
]


@pytest.fixture(scope="module")
def m3(tiny_m3):
    return M3Encoder.from_pretrained(tiny_m3, device="cpu")


@pytest.fixture(scope="module")
def bert(tiny_bert):
    heads = HeadSpec(sparse=False, colbert="identity")
    return M3Encoder.from_pretrained(tiny_bert, device="cpu", heads=heads)


@pytest.fixture(scope="module")
def splade(tmp_path_factory):
    folder = write_tiny_splade(tmp_path_factory.mktemp("splade"))
    return SpladeEncoder.from_pretrained(folder, device="cpu", top_terms=40)


class TestM3Encoder(EncoderContract):
    @pytest.fixture
    def encoder(self, m3):
        return m3


class TestM3EncoderThatKeepsNothing(EncoderContract):
    @pytest.fixture
    def encoder(self, tiny_m3):
        return M3Encoder.from_pretrained(tiny_m3, device="cpu", keep=None)


class TestM3EncoderWithoutASparseHead(EncoderContract):
    @pytest.fixture
    def encoder(self, bert):
        return bert


class TestSpladeEncoder(EncoderContract):
    @pytest.fixture
    def encoder(self, splade):
        return splade


class TestCombinedEncoder(EncoderContract):
    @pytest.fixture
    def encoder(self, m3, bert):
        return CombinedEncoder(dense=bert, sparse=m3, colbert=bert)


class TestEmbeddingsEncoder(EncoderContract):
    @pytest.fixture
    def encoder(self):
        return EmbeddingsEncoder(Letters())


class TestAnEncoderThatInheritsNothing(EncoderContract):
    @pytest.fixture
    def encoder(self):
        return Words()


class Letters:
    """How often each letter stands in a text, by LangChain's methods."""

    def embed_query(self, text):
        return [text.count(letter) + 0.01 for letter in "abcdefghijklmnopqrstuvwxyz"]

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


class Words:
    """Hashed words as a dense vector: the protocol by hand."""

    name = "words"
    outputs = ("dense",)
    dimension = 64
    default_weights = HybridWeights(dense=1, sparse=0, colbert=0)
    fingerprint = "words-1"

    @property
    def vocabulary_size(self):
        raise MissingHeadError("no sparse output")

    def encode_documents(self, texts, *, outputs=None, show_progress=False):
        for output in outputs or ():
            if output not in ("dense", "sparse", "colbert"):
                raise InputError(f"outputs expects ('dense',), got {output!r}.")
            if output != "dense":
                raise MissingHeadError(f"no {output} output")
        if isinstance(texts, str) or not isinstance(texts, list | tuple):
            raise InputError("expected a list")
        if not all(isinstance(text, str) for text in texts):
            raise InputError("expected strings")
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in text.split() or ["(nothing)"]:
                rows[row, sum(map(ord, word)) % self.dimension] += 1
        return Representations(dense=rows / np.linalg.norm(rows, axis=1, keepdims=True))

    encode_queries = encode_documents

    def encode_query(self, text, *, outputs=None):
        return self.encode_documents([text], outputs=outputs)

    def view(self, text, *, query, output=None):
        return TokenView(())

    def terms(self, ids):
        raise MissingHeadError("no sparse output")


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        ("loses a text", "test_a_row_a_text_of_the_stated_widths"),
        ("looks at its neighbours", "test_batch_mates_and_order_change_nothing"),
        ("takes one string", "test_what_is_no_list_of_strings_is_refused"),
    ],
)
def test_the_contract_catches_a_broken_encoder(broken, test):
    class Broken(Words):
        def encode_documents(self, texts, *, outputs=None, show_progress=False):
            if broken == "takes one string" and isinstance(texts, str):
                texts = [texts]
            found = super().encode_documents(texts, outputs=outputs)
            if broken == "loses a text":
                return found[: len(found) - 1]
            if broken == "looks at its neighbours":
                return Representations(dense=np.roll(found.dense, len(texts) % 3, axis=1))
            return found

    options = {"role": "encode_documents"} if "row" in test else {}
    options |= {"texts": "one text"} if "strings" in test else {}
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        getattr(EncoderContract(), test)(Broken(), **options)
