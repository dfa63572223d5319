"""What every encoder has to do, as tests: for the package's own, and for whoever writes another."""

from __future__ import annotations

import numpy as np
import pytest

from m3_retrievers.encoder.base import Encoder
from m3_retrievers.errors import InputError, MissingHeadError
from m3_retrievers.retrieval.reranking import rerank
from m3_retrievers.retrieval.retriever import HybridRetriever
from m3_retrievers.types.plan import HybridWeights
from m3_retrievers.types.representations import ALL_OUTPUTS, Representations

TEXTS = (
    "The river rose three metres overnight.",
    "A librarian finds the one page that matters.",
    "page",
    "",
    "Der Fluss stieg über Nacht um drei Meter. 河水一夜之间上涨了三米。",
    "A librarian finds the one page that matters.",
)


class EncoderContract:
    """The tests of an encoder: subclass it, and give it one.

    ::

        class TestMyEncoder(EncoderContract):
            @pytest.fixture
            def encoder(self):
                return MyEncoder(…)

    tolerance: how far two encodings of one text may be apart, from batch to batch; 1e-5, or what
    the transport's number type allows.

    What an encoder cannot do is overridden and marked ``pytest.mark.xfail(reason=…)``.
    """

    tolerance: float = 1e-5

    def test_it_has_every_member_of_the_protocol(self, encoder: Encoder) -> None:
        # by name: asking for a width would load the model, or raise where there is none
        assert {name for name in vars(Encoder) if not name.startswith("_")} <= set(dir(encoder))
        assert encoder.name
        assert encoder.outputs
        assert set(encoder.outputs) <= set(ALL_OUTPUTS)
        assert isinstance(encoder.default_weights, HybridWeights)

    @pytest.mark.parametrize("role", ["encode_queries", "encode_documents"])
    def test_a_row_a_text_of_the_stated_widths(self, encoder: Encoder, role: str) -> None:
        found: Representations = getattr(encoder, role)(TEXTS)
        assert found.outputs == encoder.outputs
        assert len(found) == len(TEXTS)
        if found.dense is not None:
            assert found.dense.dtype == np.float32
            assert found.dense.shape == (len(TEXTS), encoder.dimension)
            lengths = np.linalg.norm(found.dense[:3], axis=1)
            np.testing.assert_allclose(lengths, 1, atol=max(1e-4, self.tolerance))
        if found.sparse is not None:
            assert found.sparse.shape == (len(TEXTS), encoder.vocabulary_size)
            assert (found.sparse.data > 0).all()
            assert found.sparse.has_canonical_format or found.sparse.nnz == 0
        if found.colbert is not None:
            assert (found.colbert.lengths[:3] > 0).all()
            norms = np.linalg.norm(found.colbert.vectors, axis=1)
            np.testing.assert_allclose(norms, 1, atol=max(1e-4, self.tolerance))

    @pytest.mark.parametrize("role", ["encode_queries", "encode_documents"])
    def test_each_output_alone_is_the_same_as_with_the_others(
        self, encoder: Encoder, role: str
    ) -> None:
        whole = getattr(encoder, role)(TEXTS)
        for output in encoder.outputs:
            alone = getattr(encoder, role)(TEXTS, outputs=(output,))
            assert alone.outputs == (output,)
            self._same(alone, whole.select((output,)))

    def test_batch_mates_and_order_change_nothing(self, encoder: Encoder) -> None:
        whole = encoder.encode_documents(TEXTS)
        turned = encoder.encode_documents(TEXTS[::-1])
        self._same(turned[np.arange(len(TEXTS))[::-1]], whole)
        for row, text in enumerate(TEXTS):
            self._same(encoder.encode_documents([text]), whole[row])

    def test_equal_texts_have_equal_rows(self, encoder: Encoder) -> None:
        found = encoder.encode_documents(TEXTS)
        last = len(TEXTS) - 1
        self._same(found[1], found[last], tolerance=0)

    def test_one_query_is_a_record_of_one_row(self, encoder: Encoder) -> None:
        one = encoder.encode_query(TEXTS[0])
        assert len(one) == 1
        self._same(one, encoder.encode_queries(TEXTS[:1]))

    def test_no_texts_give_no_rows_of_the_right_widths(self, encoder: Encoder) -> None:
        for found in (encoder.encode_queries([]), encoder.encode_documents([])):
            assert found.outputs == encoder.outputs
            assert len(found) == 0
            if found.dense is not None:
                assert found.dense.shape == (0, encoder.dimension)
            if found.sparse is not None:
                assert found.sparse.shape == (0, encoder.vocabulary_size)

    @pytest.mark.parametrize("texts", ["one text", [None], [1], 5, [b"bytes"]])
    def test_what_is_no_list_of_strings_is_refused(self, encoder: Encoder, texts: object) -> None:
        with pytest.raises(InputError):
            encoder.encode_documents(texts)  # type: ignore[arg-type]

    def test_odd_characters_do_no_harm(self, encoder: Encoder) -> None:
        texts = ["\ud800 half a pair", "\x00\x1b[31m", "👩‍👩‍👧‍👦", " \n\t", "a" * 3000]
        assert len(encoder.encode_queries(texts[:4])) == 4

    def test_an_output_it_lacks_or_that_is_none_is_named(self, encoder: Encoder) -> None:
        with pytest.raises(InputError):
            encoder.encode_query("page", outputs=("vectors",))  # type: ignore[arg-type]
        for output in ALL_OUTPUTS:
            if output not in encoder.outputs:
                with pytest.raises(MissingHeadError, match=output):
                    encoder.encode_query("page", outputs=(output,))

    def test_inputs_stay_as_they_are_and_results_are_the_callers(self, encoder: Encoder) -> None:
        texts = list(TEXTS)
        before = encoder.encode_documents(texts)
        assert texts == list(TEXTS)
        for values in (before.dense, before.sparse.data if before.sparse is not None else None):
            if values is not None and values.flags.writeable:
                values[:] = 0
        again = encoder.encode_documents(texts)
        assert any(
            np.any(values)
            for values in (again.dense, again.sparse.data if again.sparse is not None else None)
            if values is not None
        ) or again.outputs == ("colbert",)

    def test_the_fingerprint_stays(self, encoder: Encoder) -> None:
        assert isinstance(encoder.fingerprint, str)
        assert encoder.fingerprint == encoder.fingerprint

    def test_tokens_lie_in_the_text_they_are_of(self, encoder: Encoder) -> None:
        for query in (True, False):
            for text in TEXTS:
                for token in encoder.view(text, query=query).tokens:
                    assert 0 <= token.start <= token.end <= len(text)

    def test_columns_have_spellings(self, encoder: Encoder) -> None:
        if "sparse" in encoder.outputs:
            row = encoder.encode_documents(TEXTS[:1]).require("sparse")
            spelled = encoder.terms(row.indices.tolist())
            assert len(spelled) == row.nnz
            assert all(isinstance(term, str) for term in spelled)

    @pytest.mark.filterwarnings("ignore::m3_retrievers.errors.LexicalFallbackWarning")
    def test_a_retriever_and_a_reranker_take_it(self, encoder: Encoder) -> None:
        retriever = HybridRetriever(encoder)
        retriever.add(list(TEXTS[:3]), ids=["river", "librarian", "page"])
        hits = retriever.search(TEXTS[1], k=3)
        assert hits[0].id == "librarian"
        ranked = rerank(encoder, TEXTS[1], list(TEXTS[:3]))
        assert ranked[0].index == 1
        weighted = {mode for mode in encoder.outputs if encoder.default_weights.of(mode) > 0}  # type: ignore[arg-type]
        if weighted == set(retriever.plan.weighted):
            assert ranked[0].score == pytest.approx(hits[0].score, abs=max(2e-3, self.tolerance))

    def _same(
        self, found: Representations, expected: Representations, *, tolerance: float | None = None
    ) -> None:
        """Compare two records of the same texts, output by output."""
        within = self.tolerance if tolerance is None else tolerance
        if expected.dense is not None:
            np.testing.assert_allclose(found.require("dense"), expected.dense, atol=within)
        if expected.sparse is not None:
            difference = found.require("sparse") - expected.sparse
            largest = float(expected.sparse.data.max(initial=1.0))
            assert abs(difference).max() <= within * max(1.0, largest)
        if expected.colbert is not None:
            colbert = found.require("colbert")
            np.testing.assert_array_equal(colbert.offsets, expected.colbert.offsets)
            np.testing.assert_allclose(colbert.vectors, expected.colbert.vectors, atol=within)
