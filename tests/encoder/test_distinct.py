"""What a call is given twice is encoded once, and comes back with equal bits."""

import numpy as np
import pytest

from m3_retrievers import M3Encoder
from m3_retrievers.encoder.distinct import distinct_pairs
from m3_retrievers.errors import InputError, TextTooLongError, TruncationWarning

TEXTS = ["The river rose three metres.", "page", "", "The clock was repaired overnight."]


@pytest.fixture(scope="module")
def encoder(tiny_m3):
    # with batches this small, equal texts would lie in different ones
    return M3Encoder.from_pretrained(
        tiny_m3, device="cpu", document_max_length=12, batch_tokens=64, keep=None
    )


@pytest.mark.parametrize("seed", range(8))
def test_equal_texts_have_equal_bits_whatever_their_places(encoder, seed):
    texts = [TEXTS[row] for row in np.random.default_rng(seed).integers(0, 4, 24)]
    for encode in (encoder.encode_documents, encoder.encode_queries):
        found = encode(texts, outputs=("dense", "sparse", "colbert", "tokens"))
        for row, text in enumerate(texts):
            first = texts.index(text)
            np.testing.assert_array_equal(found.dense[row], found.dense[first])
            np.testing.assert_array_equal(found.colbert[row], found.colbert[first])
            assert found[row].to_dicts() == found[first].to_dicts()
            assert found.tokens[row] == found.tokens[first]


def test_repeated_texts_pass_the_backbone_once(encoder):
    sizes = []
    handle = encoder.checkpoint.backbone.register_forward_pre_hook(
        lambda _module, _args, given: sizes.append(len(given["lengths"])), with_kwargs=True
    )
    encoder.encode_documents(["page"] * 50)
    handle.remove()
    assert sizes == [1]


@pytest.mark.parametrize("seed", range(8))
def test_equal_pairs_have_equal_scores_whatever_their_places(encoder, seed):
    rng = np.random.default_rng(seed)
    pairs = [(TEXTS[q], TEXTS[d]) for q, d in rng.integers(0, 4, (30, 2))]
    scores = encoder.score_pairs(pairs)
    for row, pair in enumerate(pairs):
        first = pairs.index(pair)
        for values in (scores.dense, scores.sparse, scores.colbert, scores.hybrid):
            assert values[row] == values[first]


def test_warnings_errors_and_the_bar_count_texts_as_they_were_given(tiny_m3, encoder, capsys):
    long = "river bridge page " * 20
    with pytest.warns(TruncationWarning, match="3 of 5 texts were cut"):
        encoder.encode_documents([long, "page", long, "page", long])
    encoder.encode_documents(["page", "page", "river"], show_progress=True)
    assert "3/3" in capsys.readouterr().err
    strict = M3Encoder.from_pretrained(
        tiny_m3, device="cpu", document_max_length=12, truncation="error"
    )
    with pytest.raises(TextTooLongError, match=r"at position 3 \(2 texts are too long\)"):
        strict.encode_documents(["page", "page", "river", long, long])


def test_windows_of_a_repeated_text_count_it_as_often_as_it_was_given(tiny_m3, capsys):
    encoder = M3Encoder.from_pretrained(
        tiny_m3, device="cpu", document_max_length=8, truncation="windows"
    )
    encoder.encode_documents(["river bridge page " * 9] * 2, show_progress=True)
    assert "2/2" in capsys.readouterr().err


@pytest.mark.parametrize("pairs", [None, 3, "ab", b"ab"])
def test_what_is_no_list_of_pairs_is_refused(pairs):
    with pytest.raises(InputError, match="expected a list of pairs"):
        distinct_pairs(pairs)
