import threading
import warnings

import numpy as np
import pytest
import torch

from m3_retrievers import M3Encoder
from m3_retrievers.encoder.heads import HeadSpec
from m3_retrievers.errors import InputError, MemoryWarning, TextTooLongError, TruncationWarning
from m3_retrievers.types.plan import HybridWeights
from m3_retrievers.types.representations import ALL_OUTPUTS, Representations

TEXTS = ["The river rose three metres.", "", "图书管理员很快找到了那一页。", "page " * 40, "page"]


def assert_same(left: Representations, right: Representations, *, within: float = 1e-6) -> None:
    np.testing.assert_allclose(left.dense, right.dense, atol=within)
    np.testing.assert_allclose(left.sparse.toarray(), right.sparse.toarray(), atol=within)
    np.testing.assert_array_equal(left.colbert.offsets, right.colbert.offsets)
    np.testing.assert_allclose(left.colbert.vectors, right.colbert.vectors, atol=within)


def test_no_texts_give_empty_outputs_of_the_right_width(encoder):
    nothing, one = encoder.encode_documents([]), encoder.encode_documents(["page"])
    assert len(nothing) == 0
    assert nothing.dense.shape == (0, one.dense.shape[1])
    assert nothing.sparse.shape == (0, one.sparse.shape[1])
    assert nothing.colbert.dimension == one.colbert.dimension


def test_the_empty_text_has_a_unit_vector_no_terms_and_one_token_vector(encoder):
    empty = encoder.encode_documents([""])
    assert np.linalg.norm(empty.dense) == pytest.approx(1, abs=1e-6)
    assert empty.sparse.nnz == 0
    assert empty.colbert.lengths.tolist() == [1]


def test_all_vectors_have_length_one_and_all_weights_are_positive(encoder):
    found = encoder.encode_documents(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(found.dense, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.colbert.vectors, axis=1), 1, atol=1e-6)
    assert (found.sparse.data > 0).all()
    assert found.dense.dtype == found.sparse.dtype == found.colbert.vectors.dtype == np.float32


@pytest.mark.parametrize("budget", [1, 16, 60, 100_000])
def test_batch_mates_change_nothing(tiny_m3, encoder, budget):
    other = M3Encoder.from_pretrained(tiny_m3, device="cpu", batch_tokens=budget)
    assert_same(other.encode_documents(TEXTS), encoder.encode_documents(TEXTS))


def test_order_changes_nothing(encoder):
    order = [3, 0, 4, 2, 1]
    shuffled = encoder.encode_documents([TEXTS[row] for row in order])
    assert_same(shuffled, encoder.encode_documents(TEXTS)[np.array(order)])


@pytest.mark.parametrize("output", ALL_OUTPUTS)
def test_asking_for_one_output_computes_that_one_and_changes_no_number(encoder, output):
    alone, all_of_it = (
        encoder.encode_queries(TEXTS, outputs=[output]),
        encoder.encode_queries(TEXTS),
    )
    assert alone.outputs == (output,)
    if output == "dense":
        np.testing.assert_allclose(alone.dense, all_of_it.dense, atol=1e-6)
    elif output == "sparse":
        assert abs(alone.sparse - all_of_it.sparse).max() < 1e-6
    else:
        np.testing.assert_allclose(alone.colbert.vectors, all_of_it.colbert.vectors, atol=1e-6)


def test_a_query_alone_equals_its_row(encoder):
    assert_same(encoder.encode_query(TEXTS[0]), encoder.encode_queries(TEXTS)[0])


def test_a_generator_is_read_chunk_by_chunk(encoder):
    read: list[int] = []

    def corpus():
        for number, text in enumerate(TEXTS):
            read.append(number)
            yield text

    chunks = encoder.iter_documents(corpus(), batch_size=2)
    first = next(chunks)
    assert read == [0, 1]
    assert_same(Representations.concatenate([first, *chunks]), encoder.encode_documents(TEXTS))


@pytest.mark.filterwarnings("ignore::m3_retrievers.errors.UnknownTokenWarning")
def test_lone_surrogates_and_control_characters_do_not_crash(encoder):
    odd = ["a\ud800b \udfff", "\x00\x01\x7f\u200b\ufeff", "\U0001f600" * 5, "\n\t \r"]
    found = encoder.encode_documents(odd)
    assert np.isfinite(found.dense).all()
    assert len(encoder.encode_query("\udc80")) == 1


@pytest.mark.parametrize("bad", [None, 1.5, b"bytes"])
def test_what_is_no_text_is_refused_with_its_position(encoder, bad):
    with pytest.raises(InputError, match="position 1"):
        encoder.encode_documents(["fine", bad])
    with pytest.raises(InputError, match="string"):
        encoder.encode_query(bad)


def test_one_string_is_not_taken_for_a_list_of_characters(encoder):
    with pytest.raises(InputError, match="one string"):
        encoder.encode_documents("hello")
    with pytest.raises(InputError, match="one string"):
        list(encoder.iter_documents("hello"))


@pytest.mark.parametrize("bad", [None, 5, 1.5])
def test_what_is_no_list_of_texts_is_refused(encoder, bad):
    for call in (encoder.encode_documents, encoder.encode_queries):
        with pytest.raises(InputError, match="expected a list of texts"):
            call(bad)
    with pytest.raises(InputError, match="expected a list of texts"):
        next(encoder.iter_documents(bad))


@pytest.mark.parametrize("weights", [[1, 0.3, 1], 1.0, {"dens": 1}, "dense", (1, 2)])
def test_weights_that_are_no_weights_are_refused(encoder, weights):
    with pytest.raises(InputError, match="weights expects HybridWeights"):
        encoder.score_pairs([("a", "b")], weights=weights)


def test_outputs_may_be_any_iterable_and_come_in_one_order(encoder):
    found = encoder.encode_query("page", outputs=iter(["sparse", "dense"]))
    assert found.outputs == ("dense", "sparse")


@pytest.mark.parametrize("outputs", [["colours"], "dense", [], 5, [["dense"]], [None], 1.5])
def test_outputs_that_do_not_exist_are_refused(encoder, outputs):
    with pytest.raises(InputError, match="outputs expects"):
        encoder.encode_query("page", outputs=outputs)


LONG = "river bridge page " * 6000  # over 100,000 characters


def test_a_very_long_text_is_cut_with_a_warning(tiny_m3):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", document_max_length=64)
    assert len(LONG) > 100_000
    with pytest.warns(TruncationWarning, match="1 of 2 texts were cut to 62 tokens"):
        found = encoder.encode_documents(["page", LONG])
    assert found.colbert.lengths[1] == 63


def test_a_very_long_text_can_be_refused(tiny_m3):
    encoder = M3Encoder.from_pretrained(
        tiny_m3, device="cpu", document_max_length=64, truncation="error"
    )
    with pytest.raises(TextTooLongError, match="at most 62 tokens"):
        encoder.encode_documents([LONG])


@pytest.mark.slow
def test_8192_tokens_go_through_in_one_piece(encoder):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TruncationWarning)
        found = encoder.encode_documents([LONG], outputs=("dense", "colbert"))
    assert found.colbert.lengths.tolist() == [8191]
    assert np.isfinite(found.dense).all()


def test_windows_keep_every_token_in_one_row(tiny_m3):
    encoder = M3Encoder.from_pretrained(
        tiny_m3, device="cpu", document_max_length=16, truncation="windows"
    )
    text = "river bridge page " * 20
    whole = encoder.encode_documents([text, "page"])
    ids = [t.id for t in encoder.encode_documents([text], outputs=("tokens",)).tokens[0]]
    frame = encoder.checkpoint.frame
    parts = [ids[at : at + 14] for at in range(0, len(ids), 14)]
    texts = [encoder.tokenizer.decode(part) for part in parts]
    assert len(whole) == 2
    # every window ends with its own EOS vector
    assert whole.colbert.lengths[0] == len(ids) + len(parts) * len(frame.after)
    assert set(whole.sparse[[0]].indices) <= set(ids)
    assert np.linalg.norm(whole.dense[0]) == pytest.approx(1, abs=1e-6)
    assert len(texts) > 2


def test_windows_equal_their_parts_put_together(tiny_m3):
    windowed = M3Encoder.from_pretrained(
        tiny_m3, device="cpu", document_max_length=5, truncation="windows"
    )
    plain = M3Encoder.from_pretrained(tiny_m3, device="cpu")
    words = ["page", "page", "page", "page", "page", "page"]
    tokens = plain.encode_documents([" ".join(words)], outputs=("tokens",)).tokens[0]
    whole = windowed.encode_documents([" ".join(words)])
    size = 3  # 5 less CLS and SEP
    spans = [tokens[at : at + size] for at in range(0, len(tokens), size)]
    text = " ".join(words)
    parts = plain.encode_documents([text[s[0].start : s[-1].end].strip() for s in spans])
    if [len(s) for s in spans] != (parts.colbert.lengths - 1).tolist():
        pytest.fail("the test's words must be cut at token boundaries")
    pooled = parts.dense.sum(axis=0)
    np.testing.assert_allclose(whole.dense[0], pooled / np.linalg.norm(pooled), atol=1e-6)
    np.testing.assert_allclose(whole.colbert.vectors, parts.colbert.vectors, atol=1e-6)
    largest = parts.sparse.toarray().max(axis=0)
    np.testing.assert_allclose(whole.sparse.toarray()[0], largest, atol=1e-6)


def test_mcls_pools_the_states_of_every_inserted_cls(tiny_m3):
    every = 4
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", mcls_every=every)
    text = "The river rose three metres overnight, and the bridge was closed."
    found = encoder.encode_documents([text], outputs=("dense", "sparse", "colbert", "tokens"))
    ids = [token.id for token in found.tokens[0]]
    segments = [[0, *ids[at : at + every]] for at in range(0, len(ids), every)]
    sequence = [i for segment in segments for i in segment] + [2]
    with torch.inference_mode():
        states = encoder.checkpoint.backbone(torch.tensor(sequence), [len(sequence)])
    at_cls = [place for place in range(len(sequence)) if place % (every + 1) == 0]
    at_cls = [place for place in at_cls if sequence[place] == 0]
    pooled = states[at_cls].mean(dim=0)
    np.testing.assert_allclose(found.dense[0], (pooled / pooled.norm()).numpy(), atol=1e-5)
    assert found.colbert.lengths.tolist() == [len(ids) + 1]
    assert found.sparse[[0], [0]].sum() == 0


def test_mcls_leaves_short_documents_and_all_queries_alone(tiny_m3, encoder):
    mcls = M3Encoder.from_pretrained(tiny_m3, device="cpu", mcls_every=30)
    assert_same(mcls.encode_documents(["page"]), encoder.encode_documents(["page"]))
    assert_same(mcls.encode_queries([TEXTS[3]]), encoder.encode_queries([TEXTS[3]]))


def test_truncate_dim_cuts_before_normalising(tiny_m3, encoder):
    short = M3Encoder.from_pretrained(tiny_m3, device="cpu", truncate_dim=8)
    leading = encoder.encode_documents(TEXTS).dense[:, :8]
    leading /= np.linalg.norm(leading, axis=1, keepdims=True)
    np.testing.assert_allclose(short.encode_documents(TEXTS).dense, leading, atol=1e-6)
    assert short.dimension == 8


def test_the_query_instruction_goes_before_queries_only(tiny_m3, encoder):
    told = M3Encoder.from_pretrained(tiny_m3, device="cpu", query_instruction="river: ")
    assert_same(told.encode_query("page"), encoder.encode_query("river: page"))
    assert_same(told.encode_documents(["page"]), encoder.encode_documents(["page"]))
    tokens = told.encode_query("page", outputs=("tokens",)).tokens[0]
    assert [(t.start, t.end) for t in tokens if t.end] == [(0, 4)]


def test_the_token_view_tells_tokens_apart_by_place(encoder):
    text = "page river page über"
    found = encoder.encode_documents([text], outputs=("sparse", "tokens"))
    tokens = found.tokens[0]
    assert {text[t.start : t.end] for t in tokens} >= {"page", "river"}
    places = [(t.start, t.end) for t in tokens]
    assert places == sorted(places)
    best: dict[int, float] = {}
    for token in tokens:
        best[token.id] = max(best.get(token.id, 0.0), token.weight)
    expected = {i: w for i, w in best.items() if w > 0 and i not in encoder.checkpoint.dropped_ids}
    assert found.to_dicts()[0] == pytest.approx(expected)


@pytest.mark.slow
def test_mean_pooling_equals_sentence_transformers():
    from sentence_transformers import SentenceTransformer

    encoder = M3Encoder.from_pretrained("m3-mini/backbone", device="cpu")
    peer = SentenceTransformer(str(encoder.source.folder), device="cpu")
    texts = ["How do I read a file row by row?", "", "The river rose."]
    expected = peer.encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_documents(texts).dense, expected, atol=1e-5)


def test_half_precision_stays_close(tiny_m3, encoder):
    half = M3Encoder.from_pretrained(tiny_m3, device="cpu", precision="bf16")
    cosine = (half.encode_documents(TEXTS).dense * encoder.encode_documents(TEXTS).dense).sum(
        axis=1
    )
    assert half.encode_documents(TEXTS).dense.dtype == np.float32
    assert (cosine > 0.98).all()


def test_concurrent_queries_get_their_own_answers_from_fewer_passes(tiny_m3, encoder, monkeypatch):
    shared = M3Encoder.from_pretrained(tiny_m3, device="cpu", keep=None)
    passes: list[int] = []
    real = shared.checkpoint.backbone.forward

    def counted(*args, **kwargs):
        passes.append(1)
        threading.Event().wait(0.05)
        return real(*args, **kwargs)

    monkeypatch.setattr(shared.checkpoint.backbone, "forward", counted)
    texts = [f"page {number}" for number in range(16)]
    found: dict[str, Representations] = {}
    threads = [
        threading.Thread(target=lambda t=text: found.update({t: shared.encode_query(t)}))
        for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passes) < len(texts) / 2
    for text in texts:
        assert_same(found[text], encoder.encode_query(text))


def test_memory_that_runs_out_halves_the_batch_and_changes_no_number(tiny_m3, encoder, monkeypatch):
    tight = M3Encoder.from_pretrained(tiny_m3, device="cpu", keep=None)
    real = tight.checkpoint.backbone.forward

    def limited(input_ids, **kwargs):
        if input_ids.numel() > 50:
            raise torch.OutOfMemoryError("out of memory")
        return real(input_ids=input_ids, **kwargs)

    monkeypatch.setattr(tight.checkpoint.backbone, "forward", limited)
    with pytest.warns(MemoryWarning):
        found = tight.encode_documents(TEXTS * 3)
    assert_same(found, encoder.encode_documents(TEXTS * 3))


def test_pair_scores_follow_the_weights_and_say_what_is_missing(tiny_bert, encoder):
    pairs = [("river", "The river rose."), ("river", "page"), ("page", "page")]
    scores = encoder.score_pairs(pairs, weights=HybridWeights(dense=0.4, sparse=0.2, colbert=0.4))
    np.testing.assert_allclose(
        scores.hybrid, 0.4 * scores.dense + 0.2 * scores.sparse + 0.4 * scores.colbert, atol=1e-6
    )
    np.testing.assert_allclose(scores.colbert_sparse_dense, scores.hybrid, atol=1e-6)
    bert = M3Encoder.from_pretrained(
        tiny_bert, device="cpu", heads=HeadSpec(sparse=False, colbert="identity")
    )
    partial = bert.score_pairs(pairs)
    assert partial.sparse is None
    assert partial.sparse_dense is None
    assert len(partial) == 3
    assert len(encoder.score_pairs([])) == 0


def test_weights_of_zero_leave_a_mean_out_rather_than_give_nan(encoder):
    scores = encoder.score_pairs([("a", "b")], weights=HybridWeights(dense=0, sparse=0, colbert=1))
    assert scores.sparse_dense is None
    np.testing.assert_allclose(scores.colbert_sparse_dense, scores.colbert)


@pytest.mark.parametrize("pair", ["ab", ("a",), ("a", None), 3])
def test_what_is_no_pair_is_refused(encoder, pair):
    with pytest.raises(InputError, match="position 0"):
        encoder.score_pairs([pair])


def test_the_bar_is_off_unless_asked_for(encoder, capsys):
    encoder.encode_documents(TEXTS)
    quiet = capsys.readouterr()
    assert quiet.out + quiet.err == ""
    encoder.encode_documents(TEXTS, show_progress=True)
    assert "5/5" in capsys.readouterr().err
